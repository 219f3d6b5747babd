# What people and CI run; CI calls these targets and nothing else.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Tools run at a pinned version and stay out of go.mod.
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK := go run golang.org/x/vuln/cmd/govulncheck@v1.9.0

FUZZTIME ?= 20s
VULNDB ?= https://vuln.go.dev
# The race detector needs a C compiler, and Go says 0 here where there is none.
RACE = $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)

.PHONY: help run build test oracle lint fuzz bench bench-record bench-accounts microbench cover vuln mongo mongo-stop

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Each of the two has a process group of its own, so that Ctrl-C reaches this
# shell only, which then asks both to stop, once.
run: build ## build and run the gateway on :8080 with the task manager behind it
	@tasks= gateway=; \
	alive() { kill -0 "$$1" 2>/dev/null; }; \
	stop() { kill $$tasks $$gateway 2>/dev/null || true; wait; }; \
	trap 'stop; exit 0' INT TERM HUP; \
	set -m; \
	./bin/taskmanager & tasks=$$!; \
	./bin/gateway serve -c gateway.yaml --create-admin & gateway=$$!; \
	set +m; \
	while alive "$$tasks" && alive "$$gateway"; do sleep 0.2; done; \
	alive "$$gateway" && first=$$tasks || first=$$gateway; \
	status=0; wait "$$first" || status=$$?; stop; exit "$$status"

build: ## build the binaries into ./bin
	@CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

test: ## every test; those against MongoDB and Redis when MONGODB_URI and REDIS_URL are set
	@[[ -n "$${MONGODB_URI:-}" ]] || echo "test: MONGODB_URI is not set, so nothing is tested against MongoDB ('make mongo' provides one)"
	@[[ -n "$${REDIS_URL:-}" ]] || echo "test: REDIS_URL is not set, so nothing is tested against Redis"
	@[[ -n "$(RACE)" ]] || echo "test: there is no C compiler, so the race detector is off"
	go test $(RACE) -timeout 10m ./...
	@# The race detector does not see the sockets that are used without it.
	$(if $(RACE),go test -short -timeout 5m ./gateway)

oracle: ## a million answers of the policy index, compared with Casbin's
	POLICY_COMPARISONS=1000000 go test -count=1 -run '^TestIndexEqualsCasbin$$' -v ./policy

lint: ## formatting, tidiness of go.mod, go vet, golangci-lint
	@unformatted=$$(gofmt -l .); [[ -z "$$unformatted" ]] || { echo "not formatted (gofmt -w .):"; echo "$$unformatted"; exit 1; }
	go mod tidy -diff
	go vet ./...
	$(GOLANGCI_LINT) run

fuzz: ## every fuzz test for FUZZTIME (20s) each
	@for package in $$(go list ./...); do \
		targets=$$(go test -list '^Fuzz' "$$package"); \
		for target in $$(sed -n '/^Fuzz/p' <<<"$$targets"); do \
			echo "fuzz: $$package $$target for $(FUZZTIME)"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime "$(FUZZTIME)" -fuzzminimizetime 10x "$$package"; \
		done; \
	done

bench: build ## the gateway beside nginx and HAProxy; BENCH='-case get' and the like, see bin/bench -help
	@bin/bench $(BENCH)

bench-record: build ## the same, kept: cmd/bench/result.json and .svg, and the table in README.md
	@bin/bench -json cmd/bench/result.json -svg cmd/bench/result.svg -readme README.md $(BENCH)

microbench: ## every Go benchmark
	go test -run '^$$' -bench . -benchmem ./...

bench-accounts: ## what a login costs the store with few users and with very many; against MongoDB, too, when MONGODB_URI is set
	BENCH_ACCOUNTS=1 go test -run '^$$' -bench AccountsGrow -benchtime 1x -timeout 3h ./identity/boltstore ./identity/mongostore

cover: ## the part of the code that tests run, and bin/cover.html
	@mkdir -p bin
	go test -timeout 10m -coverpkg=./... -coverprofile=bin/cover.out ./...
	@go tool cover -html=bin/cover.out -o bin/cover.html
	@go tool cover -func=bin/cover.out | tail -n 1

vuln: ## known vulnerabilities that this code can reach
	@output=$$($(GOVULNCHECK) -db "$(VULNDB)" ./... 2>&1) && { echo "$$output"; exit 0; } || status=$$?; \
	echo "$$output"; \
	if [[ "$$output" == *"fetching vulnerabilities"* ]]; then \
		echo "vuln: nothing was checked, because the database $(VULNDB) cannot be reached from here; make vuln VULNDB=… takes another"; \
	fi; \
	exit "$$status"

mongo: ## a MongoDB-compatible server on 127.0.0.1:27017, where none is installed (Debian, root)
	@.ci/mongo start

mongo-stop: ## stop what make mongo has started
	@.ci/mongo stop

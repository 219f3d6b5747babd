# Both binaries in one image without anything else; the gateway is what it runs.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /out/ ./cmd/... && mkdir /out/data

FROM scratch
# For mongodb+srv, https upstreams and mail over TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/gateway /out/taskmanager /
WORKDIR /srv
COPY gateway.yaml ./
COPY policy/policy.csv policy/policy.test.yaml policy/
COPY upstream/openapi.yaml upstream/
COPY --from=build --chown=65532:65532 /out/data data
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/gateway"]
CMD ["serve", "-c", "gateway.yaml"]

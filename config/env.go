package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

const (
	// prefix is what the names of our environment variables begin with.
	prefix = "GATEWAY_"
	// fileSuffix is what the name of a variable ends with whose value is the
	// name of a file.
	fileSuffix = "_FILE"
)

// variable returns the name of the environment variable that sets the key of
// that path, "" if there is none: elements of lists have no names.
func variable(path string) string {
	if strings.Contains(path, "[") {
		return ""
	}
	return prefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

// environment holds the variables that are ours, and remembers which of them
// mean something.
type environment struct {
	values map[string]string
	known  map[string]bool
}

// newEnvironment takes variables as os.Environ returns them; of two with one
// name the later counts.
func newEnvironment(env []string) *environment {
	e := &environment{values: map[string]string{}, known: map[string]bool{}}
	for _, v := range env {
		if name, value, ok := strings.Cut(v, "="); ok && strings.HasPrefix(name, prefix) {
			e.values[name] = value
		}
	}
	return e
}

// take returns the value of a variable that means something.
func (e *environment) take(name string) (value string, set bool) {
	e.known[name] = true
	value, set = e.values[name]
	return value, set
}

// unknown reports the variables that were never taken.
func (e *environment) unknown() []Problem {
	var problems []Problem
	known := slices.Sorted(maps.Keys(e.known))
	for name, value := range e.values {
		if e.known[name] || isServiceLink(name, value) {
			continue
		}
		problems = append(problems, Problem{Variable: name, Message: "sets no key of gateway.yaml" + didYouMean(name, known)})
	}
	return problems
}

// isServiceLink recognises the variables that Kubernetes gives every container
// beside a Service whose name is gateway or begins with gateway-. If they were
// refused, the name of its Service could keep the gateway from starting.
func isServiceLink(name, value string) bool {
	return regexp.MustCompile(`_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`).MatchString(name) ||
		strings.HasSuffix(name, "_PORT") && regexp.MustCompile(`^(tcp|udp|sctp)://`).MatchString(value)
}

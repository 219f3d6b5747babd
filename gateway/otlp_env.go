package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// collectorEnv is what the environment says of the collector, in the variables
// that every OpenTelemetry exporter reads
// (opentelemetry.io/docs/specs/otel/protocol/exporter). Where spans go and for how
// long they are tried is not among it.
type collectorEnv struct {
	header       http.Header
	gzip         bool
	roots        *x509.CertPool // nil means the system's
	certificates []tls.Certificate
}

// readCollectorEnv reads OTEL_EXPORTER_OTLP_HEADERS, _COMPRESSION, _CERTIFICATE,
// _CLIENT_CERTIFICATE and _CLIENT_KEY, each of which gives way to the variable
// for traces alone (OTEL_EXPORTER_OTLP_TRACES_…). What is to prove who we are, or
// who the collector is, has to make sense. Its errors hold no value of a header.
func readCollectorEnv() (collectorEnv, error) {
	var env collectorEnv
	name, value := lookupOTLP("HEADERS")
	header, err := parseOTLPHeaders(value)
	if err != nil {
		return env, fmt.Errorf("%s: %w", name, err)
	}
	env.header = header
	_, value = lookupOTLP("COMPRESSION")
	env.gzip = strings.EqualFold(value, "gzip")
	if name, value = lookupOTLP("CERTIFICATE"); value != "" {
		pem, err := os.ReadFile(value)
		if err != nil {
			return env, fmt.Errorf("%s: %w", name, err)
		}
		if env.roots = x509.NewCertPool(); !env.roots.AppendCertsFromPEM(pem) {
			return env, fmt.Errorf("%s: %s holds no certificate", name, value)
		}
	}
	name, certificate := lookupOTLP("CLIENT_CERTIFICATE")
	_, key := lookupOTLP("CLIENT_KEY")
	if certificate != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return env, fmt.Errorf("%s: %w", name, err)
		}
		env.certificates = []tls.Certificate{pair}
	}
	return env, nil
}

// lookupOTLP returns the variable that counts, and what it says.
func lookupOTLP(what string) (name, value string) {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_" + what, "OTEL_EXPORTER_OTLP_" + what} {
		if value := strings.TrimSpace(os.Getenv(name)); value != "" {
			return name, value
		}
	}
	return "OTEL_EXPORTER_OTLP_" + what, ""
}

// unfollowed is a variable that says something else than is done.
type unfollowed struct{ name, instead string }

// findUnfollowed finds them. The specification has them ignored, but not in silence
// (opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables): a
// collector that speaks gRPC alone takes no span of ours, and nobody would know why.
func findUnfollowed(cfg TracingConfig) []unfollowed {
	base := strings.TrimSuffix(cfg.Endpoint, "/")
	var found []unfollowed
	check := func(name, value, instead string, fine ...string) {
		same := func(s string) bool { return strings.EqualFold(s, value) }
		if value != "" && !slices.ContainsFunc(fine, same) {
			found = append(found, unfollowed{name, instead})
		}
	}
	otlp := func(what, instead string, fine ...string) {
		name, value := lookupOTLP(what)
		check(name, value, instead, fine...)
	}
	sdk := func(name, instead string, fine ...string) {
		check(name, strings.TrimSpace(os.Getenv(name)), instead, fine...)
	}
	otlp("PROTOCOL", "http/protobuf", "http/protobuf")
	otlp("COMPRESSION", "none", "gzip", "none")
	otlp("ENDPOINT", "telemetry.otlp_endpoint", base, base+"/", base+tracesPath)
	otlp("TIMEOUT", spanTimeout.String(), strconv.FormatInt(spanTimeout.Milliseconds(), 10))
	sdk("OTEL_SDK_DISABLED", "telemetry.otlp_endpoint", "false")
	sdk("OTEL_TRACES_EXPORTER", "telemetry.otlp_endpoint", "otlp")
	sdk("OTEL_TRACES_SAMPLER", "telemetry.sample_ratio")
	sdk("OTEL_PROPAGATORS", "tracecontext", "tracecontext", "tracecontext,baggage")
	sdk("OTEL_SERVICE_NAME", "telemetry.service_name", cfg.ServiceName)
	return found
}

// parseOTLPHeaders reads name=value,name=value with values percent-encoded.
func parseOTLPHeaders(text string) (http.Header, error) {
	header := http.Header{}
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, found := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		if !found || !httpguts.ValidHeaderFieldName(name) {
			return nil, errors.New("not name=value,name=value with names of header fields") // without it, it may be a secret
		}
		value, err := url.PathUnescape(value)
		value = strings.TrimSpace(value)
		if err != nil || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("the value of %s is not a percent-encoded value of a header field", name)
		}
		header.Set(name, value)
	}
	return header, nil
}

// secrets hides the values of the header, and each word of them: of "Bearer abc"
// it is abc that is told back.
func (env collectorEnv) secrets() *strings.Replacer {
	var words, pairs []string
	for _, values := range env.header {
		words = append(words, strings.Fields(strings.Join(values, " "))...)
	}
	// The first that fits is replaced: of a word that begins with another the rest would stay.
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	for _, word := range words {
		pairs = append(pairs, word, "[hidden]")
	}
	return strings.NewReplacer(pairs...)
}

package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// guardOperators keeps web pages away from the operators' listener, which has no
// authentication. A page that somebody on this machine has open in a browser can
// make that browser ask addresses that only the machine itself gets to, and with
// a name that its owner lets point here (DNS rebinding) even read the answers.
//
// So a listener on a loopback address is not asked for by name, but for
// localhost, and no listener is asked by other sites. A listener on another
// address has names that only its network knows, and is that network's to guard.
func guardOperators(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch site := r.Header.Get("Sec-Fetch-Site"); {
		case site != "" && site != "none" && site != "same-origin", r.Header.Get("Origin") != "" && site == "":
			http.Error(w, "asked by another site", http.StatusForbidden)
		case onLoopback(r) && !byAddress(r.Host):
			http.Error(w, "asked for by a name that is not localhost", http.StatusMisdirectedRequest)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// onLoopback reports whether the request came in on a loopback address.
func onLoopback(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}

// byAddress reports whether a Host is an address, which no name server has a say
// in, or localhost.
func byAddress(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return strings.EqualFold(name, "localhost")
}

// operator is for what operators ask and say about the policy, on top of
// guardOperators: answers that tell who did what are given to nobody who asks by a
// name, wherever the listener is, and nothing is changed by a media type that a
// page can send unasked (CSRF).
func operator(handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !byAddress(r.Host):
			refuseOperator(w, http.StatusMisdirectedRequest, "ask by address, or as localhost")
		case r.Method != http.MethodGet && r.Header.Get("Content-Type") != "application/json":
			refuseOperator(w, http.StatusUnsupportedMediaType, "the body must be application/json")
		default:
			handle(w, r)
		}
	}
}

func refuseOperator(w http.ResponseWriter, status int, why string) {
	answerOperator(w, status, struct {
		Error string `json:"error"`
	}{why})
}

func answerOperator(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.MarshalWrite(w, v, jsontext.AllowInvalidUTF8(true)) // a client that has left needs no answer
}

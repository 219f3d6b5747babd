package gateway

import (
	"context"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readiness is what /readyz answers with.
type readiness struct {
	Ready    bool   `json:"ready"`
	Draining bool   `json:"draining"`
	Store    string `json:"store"` // "ok" or "unavailable"
	Policy   string `json:"policy_revision"`
	Rules    int    `json:"policy_rules"`
	// Loaded is when the policy was loaded, and Age how many seconds ago that was.
	Loaded time.Time `json:"policy_loaded_at"`
	Age    int64     `json:"policy_age_seconds"`
	// ReloadError is why the last reload kept the old configuration; "" if it did not.
	ReloadError string    `json:"reload_error,omitempty"`
	RefusedAt   time.Time `json:"reload_refused_at,omitzero"`
	// CertificateError is why certificates are not those of their files; "" if they are.
	CertificateError string `json:"certificate_error,omitempty"`
}

// AdminHandler is what operators and orchestrators ask, on a listener of its
// own: it must never be reachable from the edge.
func (g *Gateway) AdminHandler(metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n")) // a client that has left needs no answer
	})
	mux.HandleFunc("GET /readyz", g.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /policy/shadow", operator(g.getShadow))
	mux.HandleFunc("GET /policy/hits", operator(g.getHits))
	mux.HandleFunc("POST /policy/shadow/acknowledge", operator(g.acknowledgeShadow))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return guardOperators(mux)
}

// readyz says whether new requests should come here. A store that is away does
// not make the gateway unready: what is proxied goes on without it.
func (g *Gateway) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	st := g.state.Load()
	answer := readiness{
		Draining: g.draining.Load(), Store: "ok",
		Policy: st.policy.Revision(), Rules: st.policy.RuleCount(), Loaded: st.loaded.UTC(), Age: int64(time.Since(st.loaded).Seconds()),
	}
	answer.Ready = !answer.Draining
	if err := st.identity.Ready(ctx); err != nil {
		answer.Store = "unavailable"
	}
	if refused := g.reloads.refused.Load(); refused != nil {
		answer.ReloadError, answer.RefusedAt = refused.text, refused.at.UTC()
	}
	if g.tlsProblem != nil {
		if err := g.tlsProblem(); err != nil {
			answer.CertificateError = err.Error()
		}
	}
	status := http.StatusOK
	if !answer.Ready {
		status = http.StatusServiceUnavailable
	}
	answerOperator(w, status, answer)
}

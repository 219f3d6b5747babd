package gateway

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// reloads is what operators can see of the configuration that is served, and of
// one that was refused.
type reloads struct {
	count    *prometheus.CounterVec
	info     *prometheus.GaugeVec
	rules    prometheus.Gauge
	loaded   prometheus.Gauge
	failed   prometheus.Gauge
	rejected prometheus.Gauge
	refused  atomic.Pointer[refusedReload] // the last reload, if it was refused
}

type refusedReload struct {
	text string
	at   time.Time
}

func newReloads(metrics prometheus.Registerer) *reloads {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	r := &reloads{
		count: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "portcullis_reloads_total", Help: "Reloads of configuration and policy, by result.",
		}, []string{"result"}),
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "portcullis_policy_info", Help: "1, for the revision of the policy that is served.",
		}, []string{"revision"}),
		rules:    gauge("portcullis_policy_rules", "Rules of the policy that is served."),
		loaded:   gauge("portcullis_policy_loaded_timestamp_seconds", "When the policy that is served was loaded."),
		failed:   gauge("portcullis_reload_refused", "1 while the last reload was refused, so that what is served is not what the files say."),
		rejected: gauge("portcullis_reload_refused_timestamp_seconds", "When a reload was last refused; 0 for never."),
	}
	for _, result := range []string{"ok", "refused"} {
		r.count.WithLabelValues(result) // so that a rate can be taken from the first one on
	}
	metrics.MustRegister(r.count, r.info, r.rules, r.loaded, r.failed, r.rejected)
	return r
}

// serving notes what is served from now on.
func (r *reloads) serving(st *State) {
	r.refused.Store(nil)
	r.failed.Set(0)
	r.info.Reset()
	r.info.WithLabelValues(st.policy.Revision()).Set(1)
	r.rules.Set(float64(st.policy.RuleCount()))
	r.loaded.Set(float64(st.loaded.UnixMilli()) / 1e3)
}

// Refused records that a reload was refused, so that operators see that what runs
// is not what the files say.
func (g *Gateway) Refused(err error) {
	now := time.Now()
	g.reloads.refused.Store(&refusedReload{err.Error(), now})
	g.reloads.failed.Set(1)
	g.reloads.rejected.Set(float64(now.UnixMilli()) / 1e3)
	g.reloads.count.WithLabelValues("refused").Inc()
}

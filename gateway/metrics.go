package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gauges are read off the running gateway when somebody scrapes, and cost nothing
// otherwise. Their labels are names of the configuration, so there are no more
// series than it has targets.
type gauges struct {
	gateway                 *Gateway
	connections, draining   *prometheus.Desc
	healthy, active, pooled *prometheus.Desc
}

func newGauges(g *Gateway) *gauges {
	one := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	target := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"upstream", "target"}, nil)
	}
	return &gauges{
		gateway:     g,
		connections: one("portcullis_client_connections", "Open connections of clients, upgraded ones among them."),
		draining:    one("portcullis_draining", "1 once the gateway was told to stop."),
		healthy:     target("portcullis_upstream_healthy", "1 if the target takes requests: neither its health check nor its breaker is against it."),
		active:      target("portcullis_upstream_requests_active", "Requests and upgraded connections under way at the target."),
		pooled:      target("portcullis_upstream_connections_idle", "Connections to the target that are kept for the next requests."),
	}
}

// Describe implements prometheus.Collector.
func (c *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.draining, c.healthy, c.active, c.pooled} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *gauges) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	send(c.connections, float64(c.gateway.clients.count()))
	send(c.draining, bit(c.gateway.draining.Load()))
	now := time.Now()
	for name, u := range c.gateway.state.Load().upstreams {
		seen := map[string]bool{}
		for _, t := range u.status(now) {
			if seen[t.addr] { // one address given twice is one series
				continue
			}
			seen[t.addr] = true
			send(c.healthy, bit(t.healthy), name, t.addr)
			send(c.active, float64(t.active), name, t.addr)
			send(c.pooled, float64(t.idle), name, t.addr)
		}
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

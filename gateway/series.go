package gateway

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// series are the metrics of one route, found once: looking them up by their
// labels would cost a request as much as its policy does.
type series struct {
	duration atomic.Pointer[prometheus.Observer]
	requests atomic.Pointer[[]requestSeries] // replaced as a whole
}

type requestSeries struct {
	method  string
	status  int
	counter prometheus.Counter
}

// maxSeries bounds what a route remembers, and the walk over it. Further pairs of
// method and status are looked up each time.
const maxSeries = 16

// count counts an event; s may be nil.
func (r *recorder) count(s *series, e *event, seconds float64) {
	if s == nil {
		r.requests.WithLabelValues(e.route, e.method, strconv.Itoa(e.status)).Inc()
		r.durations.WithLabelValues(e.route).Observe(seconds)
		return
	}
	duration := s.duration.Load()
	if duration == nil {
		found := r.durations.WithLabelValues(e.route)
		duration = &found
		s.duration.Store(duration)
	}
	(*duration).Observe(seconds)
	r.counter(s, e).Inc()
}

func (r *recorder) counter(s *series, e *event) prometheus.Counter {
	known := s.requests.Load()
	if known != nil {
		for i := range *known {
			if k := &(*known)[i]; k.status == e.status && k.method == e.method {
				return k.counter
			}
		}
	}
	counter := r.requests.WithLabelValues(e.route, e.method, strconv.Itoa(e.status))
	var more []requestSeries
	if known != nil {
		more = append(more, *known...)
	}
	if len(more) < maxSeries {
		more = append(more, requestSeries{e.method, e.status, counter})
		s.requests.CompareAndSwap(known, &more) // whoever was first is fine, too
	}
	return counter
}

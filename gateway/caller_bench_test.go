package gateway

import (
	"fmt"
	"io"
	"testing"
	"time"
)

// BenchmarkCaller is what of the road is about who is calling: the token, the
// policy, what the upstream is told and what is logged of it. What grows with the
// number of callers is memory to be fetched; "the token alone" is what the
// benchmark itself needs to have a request at hand.
func BenchmarkCaller(b *testing.B) {
	h := startHot(b, serveBytes(b, hotAnswer), io.Discard)
	st := h.gateway.state.Load()
	for _, n := range []int{1, 10_000} {
		requests := make([][]byte, n)
		for i := range requests {
			requests[i] = []byte("Bearer " + h.token(b, i))
		}
		r := &request{method: "GET", path: "/tasks/1", event: &event{}}
		var received, lines []byte
		serve := func(i int) {
			received = append(received[:0], requests[i%n]...)
			*r.event = event{start: time.Now(), requestID: "0123456789abcdef0123456789abcdef", clientIP: "127.0.0.1", method: r.method, path: r.path, status: 200, series: r.event.series}
			r.header.authorization = received
			if err := r.authenticate(st); err != nil {
				b.Fatal(err)
			}
			if err := h.gateway.decide(st, r, ""); err != nil {
				b.Fatal(err)
			}
			told, err := st.assertions.fields(st, r.principal, "up", r.event.start)
			if err != nil {
				b.Fatal(err)
			}
			lines = append(lines[:0], told...)
			h.gateway.recorder.record(r.event)
		}
		r.event.series = &series{}
		for i := range n {
			serve(i)
		}
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				serve(i)
			}
		})
		b.Run(fmt.Sprintf("the token alone/tokens=%d", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				received = append(received[:0], requests[i%n]...)
			}
		})
	}
}

package gateway

import (
	"net"
	"strings"
	"testing"
	"time"
)

// connPair returns a clientConn and its other end.
func connPair(t *testing.T) (*clientConn, *wire) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := new(clients).listen(ln).Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close(); _ = near.Close() })
	return near.(*clientConn), newWire(t, far)
}

func TestClientConnKeepsTheDeadlineThatWasSetLast(t *testing.T) {
	const short, long = 30 * time.Millisecond, 120 * time.Millisecond
	var buf [1]byte
	for name, test := range map[string]struct {
		set  []time.Duration // 0: none
		want time.Duration   // 0: never
	}{
		"the only one":         {[]time.Duration{short}, short},
		"a later one":          {[]time.Duration{short, long}, long},
		"an earlier one":       {[]time.Duration{long, short}, short},
		"none any more":        {[]time.Duration{short, 0}, 0},
		"one again after none": {[]time.Duration{long, 0, short}, short},
	} {
		t.Run(name, func(t *testing.T) {
			c, far := connPair(t)
			start := time.Now()
			for _, d := range test.set {
				at := time.Time{}
				if d > 0 {
					at = start.Add(d)
				}
				if err := c.SetReadDeadline(at); err != nil {
					t.Fatal(err)
				}
			}
			if test.want == 0 {
				go func() { time.Sleep(2 * short); far.say("x") }()
				if n, err := c.Read(buf[:]); n != 1 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
				return
			}
			_, err := c.Read(buf[:])
			if took := time.Since(start); !isTimeout(err) || took < test.want {
				t.Errorf("%v after %v", err, took)
			}
			// Moving it makes the connection usable again.
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			far.say("x")
			if n, err := c.Read(buf[:]); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
}

func TestClientConnKeepsTheServersWriteDeadline(t *testing.T) {
	c, _ := connPair(t)
	start := time.Now()
	for _, d := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond} {
		if err := c.SetWriteDeadline(start.Add(d)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Write(make([]byte, 64<<20))
	if took := time.Since(start); !isTimeout(err) || took < 100*time.Millisecond {
		t.Errorf("%v after %v", err, took)
	}
}

func TestClientConnDropsThePlaceholderAndNothingElse(t *testing.T) {
	for name, test := range map[string]struct {
		write, hears string
		fails        bool
	}{
		"alone":                     {write: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"before the next answer":    {write: "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 401 No\r\n\r\n", hears: "HTTP/1.1 401 No\r\n\r\n"},
		"not what is none":          {write: "own", fails: true},
		"not what is not all there": {write: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 5000), fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			c, far := connPair(t)
			c.answered()
			if n, err := c.Write([]byte(test.write)); (err != nil) != test.fails || err == nil && n != len(test.write) {
				t.Errorf("%d, %v", n, err)
			}
			// What can't be told apart ends the connection.
			if _, err := c.Write([]byte("more")); (err != nil) != test.fails {
				t.Error(err)
			}
			if test.hears += "more"; test.fails {
				test.hears = ""
			}
			_ = c.Close()
			far.hear(test.hears)
			far.hearEnd()
		})
	}
}

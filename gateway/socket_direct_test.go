//go:build unix

package gateway

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// directPair returns a directConn and its far end.
func directPair(t *testing.T) (*directConn, *net.TCPConn) {
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
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	c, ok := direct(near).(*directConn)
	if !ok {
		t.Fatalf("%T", direct(near))
	}
	return c, far.(*net.TCPConn)
}

// A directConn behaves as the connection beneath: all of it arrives, both ways at
// once, however large the pieces are and however slow the reader.
func TestADirectConnIsAConnection(t *testing.T) {
	c, far := directPair(t)
	all := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // more than the buffers hold
	var both sync.WaitGroup
	for _, way := range []struct{ from, to net.Conn }{{c, far}, {far, c}} {
		both.Go(func() {
			for i, size := 0, 1; i < len(all); size = size*3%50021 + 1 {
				n, err := way.from.Write(all[i:min(i+size, len(all))])
				if err != nil {
					t.Error(err)
					return
				}
				i += n
			}
		})
		both.Go(func() {
			got := make([]byte, 0, len(all))
			for size := 1; len(got) < len(all); size = size*7%30011 + 1 {
				p := make([]byte, size)
				n, err := way.to.Read(p)
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, p[:n]...)
			}
			if !bytes.Equal(got, all) {
				t.Error("something else has arrived")
			}
		})
	}
	both.Wait()
	if n, err := c.Write(nil); n != 0 || err != nil {
		t.Errorf("nothing written: %d, %v", n, err)
	}
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("nothing read: %d, %v", n, err)
	}
}

func TestADirectConnEndsAsAConnection(t *testing.T) {
	buf := make([]byte, 10)
	t.Run("deadline", func(t *testing.T) {
		c, far := directPair(t)
		if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d, %v", n, err)
		}
		if err := c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		total := 0
		for { // until the buffers are full
			n, err := c.Write(bytes.Repeat([]byte{'x'}, directMax))
			total += n
			if err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%v", err)
				}
				break
			}
		}
		_ = c.CloseWrite()
		if n, err := io.Copy(io.Discard, far); int(n) != total || err != nil {
			t.Errorf("%d bytes were said to be written, %d have arrived, %v", total, n, err)
		}
	})
	t.Run("end", func(t *testing.T) {
		c, far := directPair(t)
		_ = far.CloseWrite()
		if n, err := c.Read(buf); n != 0 || err != io.EOF { //nolint:errorlint // net.Conn's readers compare
			t.Errorf("%d, %v", n, err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		c, far := directPair(t)
		_ = far.SetLinger(0)
		_ = far.Close()
		if n, err := c.Read(buf); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d, %v", n, err)
		}
		if _, err := c.Write(buf); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%v", err)
		}
	})
	t.Run("closed by another goroutine", func(t *testing.T) {
		c, _ := directPair(t)
		ended := make(chan error)
		for range 2 { // readers take turns
			go func() {
				_, err := c.Read(make([]byte, 10))
				ended <- err
			}()
		}
		_ = c.Close()
		for range 2 {
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v", err)
			}
		}
	})
}

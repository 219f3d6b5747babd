package gateway

import "time"

// abortRead makes the read that is under way and all later ones fail. It may be
// called by any goroutine.
func (c *clientConn) abortRead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = true
	c.readArmed = time.Unix(1, 0)
	_ = c.Conn.SetReadDeadline(c.readArmed) // fails only if closed, and then reads do too
}

// watch calls gone, in another goroutine, if the client leaves before unwatch.
// Nothing else may read meanwhile.
func (c *clientConn) watch(gone func()) {
	if c.pushed != nil {
		return // the client has sent more, so it is still there
	}
	c.unwatched = false
	done := make(chan struct{})
	c.watched = done
	go func() {
		defer close(done)
		for {
			n, err := c.Conn.Read(c.pushedBuf[:])
			switch {
			case n > 0:
				c.pushed = c.pushedBuf[:n]
				return
			case err == nil || isTimeout(err) && c.rewatch():
			case isTimeout(err):
				return
			default:
				c.readErr = err
				gone()
				return
			}
		}
	}()
}

// rewatch reports whether the watch has to go on after a deadline has fired.
func (c *clientConn) rewatch() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unwatched {
		return false
	}
	c.readArmed = time.Time{}
	return c.Conn.SetReadDeadline(c.readArmed) == nil
}

// unwatch ends the watch, if there is one. gone is not called any more when it
// has returned.
func (c *clientConn) unwatch() {
	if c.watched == nil {
		return
	}
	c.mu.Lock()
	c.unwatched = true
	c.readArmed = time.Unix(1, 0) // fires, and is then found to have been moved
	_ = c.Conn.SetReadDeadline(c.readArmed)
	c.mu.Unlock()
	<-c.watched
	c.watched = nil
}

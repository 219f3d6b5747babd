package gateway

// forward hands the request to the route's upstream and the answer to the client.
func (g *Gateway) forward(st *State, r *request, route *route) error {
	e := r.event
	e.route, e.upstream, e.series = route.Path, route.name, &route.series
	out := &r.out
	*out = outbound{
		method: r.method, target: r.target, host: r.host,
		timeout: route.timeout, maxBody: route.MaxBody, edit: route.answerEdit,
		answerHeader: r.answerHeader(), start: e.start, caller: r.principal, accounts: st.identity,
	}
	if route.rewriting != nil {
		out.target = route.rewriting.target(r.target)
	}
	if r.header.upgradeListed && upgradable(r.header.upgrade) {
		out.upgrade = string(r.header.upgrade)
		out.done = func(_, bytesOut int64, err error) {
			e.bytesOut, e.cause = bytesOut, err
			g.recorder.record(e)
		}
	}
	// Ours come last, so that nothing the client said can take them away.
	out.header = r.header.appendForwardable(r.buffers.header[:0], r.head.fields, route.PassAuthorization)
	if route.requestEdit != nil {
		out.header = route.requestEdit.apply(out.header)
	}
	if r.principal != nil {
		lines, err := st.assertions.fields(st, r.principal, route.name, e.start)
		if err != nil {
			return err
		}
		out.header = append(out.header, lines...)
	} else {
		out.header = append(out.header, route.stranger...)
	}
	out.header = r.appendTrace(out.header)
	r.buffers.header = out.header

	x, err := r.exchange(route.upstream)
	e.exchange, e.bytesOut, e.status = x, x.bytesOut, x.status
	r.forwarded = x.answered || x.upgraded || err == nil
	switch {
	case x.upgraded: // recorded when it ends
	case r.forwarded:
		e.cause = err // too late to tell the client anything else
		g.recorder.record(e)
	case err != nil:
		return upstreamRefusal(err)
	}
	return nil
}

// exchange forwards the request as it is in r.out.
func (r *request) exchange(u *upstream) (exchange, error) {
	if r.ctx != nil {
		return u.forwardServed(r.ctx, &r.out)
	}
	in := inbound{conn: r.conn, body: r.body}
	x, _, err := u.forward(&in, &r.out) // without an upgrade, there is no tunnel
	r.closing = r.closing || x.closing
	return x, err
}

// answerHeader is what the gateway adds to an upstream's answer.
func (r *request) answerHeader() []byte {
	h := appendField(append(r.buffers.answer[:0], r.fields...), fieldRequestID, r.event.requestID)
	if r.header.cookieCaller { // caches know what Authorization means, and nothing of our cookies
		h = appendField(h, "Vary", "Cookie")
	}
	r.buffers.answer = h
	return h
}

// appendTrace writes where the request came from and how to find it again.
func (r *request) appendTrace(dst []byte) []byte {
	dst = appendField(dst, fieldRequestID, r.event.requestID)
	_, via := r.conn.peerAddr()
	if len(r.told.addresses) > 0 {
		via = string(r.told.addresses) + ", " + via
	}
	dst = appendField(dst, fieldForwardedFor, via)
	dst = appendField(dst, fieldForwardedProto, r.proto())
	host := r.told.host
	if host == "" {
		host = r.host
	}
	dst = appendField(dst, fieldForwardedHost, host)
	trace, recorded := r.event.traceparent()
	if !recorded {
		trace = string(r.header.traceparent)
	}
	if recorded || validTraceparent(trace) {
		return appendField(dst, fieldTraceparent, trace)
	}
	dst = append(dst, fieldTraceparent+": 00-"...)
	dst = append(appendRandomHex(dst, 2), '-')
	dst = appendRandomHex(dst, 1)
	return append(dst, "-00\r\n"...)
}

// proto is how the client speaks to us, or to the trusted proxy in front.
func (r *request) proto() string {
	switch {
	case r.told.proto != "":
		return r.told.proto
	case r.conn.tls != nil: // the server's own idea of that is about handshakes of its own
		return "https"
	}
	return "http"
}

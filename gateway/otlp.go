package gateway

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	typeProtobuf = "application/x-protobuf"
	tracesPath   = "/v1/traces"

	// The OTLP specification leaves the pauses to the client: what spanTimeout has
	// room for, so that a collector that is being restarted loses nothing.
	collectorPause    = 200 * time.Millisecond // before the second attempt, then twice as long each time
	collectorMaxPause = time.Minute            // that a collector can ask for
	collectorAnswer   = 16 << 10               // bytes of an answer, and of its header, that are read
	collectorText     = 200                    // bytes of what a collector says that are logged
)

// collector sends spans to an OpenTelemetry collector by OTLP over HTTP, as
// protobuf (opentelemetry.io/docs/specs/otlp). It is an otlptrace.Client. The
// one of OpenTelemetry, otlptracehttp, has gRPC in it, which takes 1.5 MB of memory
// before the first span.
type collector struct {
	url    string
	header http.Header
	gzip   bool
	client *http.Client
	secret *strings.Replacer // hides what the header says
	quiet  atomic.Int64      // Unix nanoseconds until which the collector asked not to be asked
	hurry  <-chan struct{}   // closed when there is no time for another attempt any more
	life   context.Context   // ends with Stop
	end    context.CancelFunc
}

func newCollector(url string, env collectorEnv, hurry <-chan struct{}) *collector {
	c := &collector{url: url, gzip: env.gzip, secret: env.secrets(), hurry: hurry, header: http.Header{"User-Agent": {"portcullis"}}}
	for name, value := range env.header {
		c.header[name] = value
	}
	c.header.Set("Content-Type", typeProtobuf)
	c.header.Del("Content-Encoding")
	if c.gzip {
		c.header.Set("Content-Encoding", "gzip")
	}
	c.client = &http.Client{
		Transport: &http.Transport{
			Proxy:       http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: spanTimeout}).DialContext,
			TLSClientConfig: &tls.Config{
				MinVersion: tls.VersionTLS12, RootCAs: env.roots, Certificates: env.certificates,
			},
			TLSHandshakeTimeout:    spanTimeout,
			ForceAttemptHTTP2:      true,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: collectorAnswer,
		},
		// The header's credentials are for the one collector that was configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// Start implements otlptrace.Client. The collector need not be there yet.
func (c *collector) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client. It ends what is under way.
func (c *collector) Stop(context.Context) error {
	c.end()
	c.client.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client. It tries again, as the specification
// says, while ctx has time for that. Its error does not hold what the header does.
func (c *collector) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	body, err := c.encode(spans)
	if err = errors.Join(err, c.life.Err()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()

	err = errCollectorBusy
	wait := c.untilAsked()
	for backoff := collectorPause; c.pause(ctx, wait); backoff *= 2 {
		var retry bool
		if retry, err = c.post(ctx, body); !retry {
			return err
		}
		jitter := rand.N(backoff) / 2 //nolint:gosec // so that replicas do not come at once; not a secret
		wait = max(backoff-jitter, c.untilAsked())
	}
	return err
}

// untilAsked is how long the collector has still asked not to be asked.
func (c *collector) untilAsked() time.Duration { return time.Until(time.Unix(0, c.quiet.Load())) }

// errCollectorBusy is why spans were not even sent.
var errCollectorBusy = errors.New("the collector has asked to be left alone for longer than spans can wait")

// pause waits, and reports whether there is still time for an attempt.
func (c *collector) pause(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-c.hurry:
		return false
	case <-ctx.Done():
		return false
	}
}

// encode returns the body of an export. TracesData is, in protobuf, an
// ExportTraceServiceRequest, whose package has the gRPC service in it.
func (c *collector) encode(spans []*tracepb.ResourceSpans) ([]byte, error) {
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil || !c.gzip {
		return body, err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err = w.Write(body)
	err = errors.Join(err, w.Close())
	return packed.Bytes(), err
}

// post makes one attempt, and reports whether another one may have more luck.
func (c *collector) post(ctx context.Context, body []byte) (retry bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	r.Header = c.header.Clone()
	res, err := c.client.Do(r)
	if err != nil {
		return true, errors.New(c.secret.Replace(err.Error())) // of a malformed answer it has the text
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, collectorAnswer))
	_ = res.Body.Close() // there is nothing more that we want of it
	if err != nil || res.Header.Get("Content-Type") != typeProtobuf {
		answer = nil // the status says what counts
	}
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		c.quiet.Store(time.Now().Add(askedToWait(res.Header.Get("Retry-After"))).UnixNano())
		retry = true
	}
	if res.StatusCode/100 == 2 {
		return false, c.partial(answer)
	}
	err = fmt.Errorf("the collector answers %d %s", res.StatusCode, http.StatusText(res.StatusCode))
	if _, text := c.said(answer); text != "" { // a google.rpc.Status
		err = fmt.Errorf("%w: %q", err, text)
	}
	return retry, err
}

// askedToWait reads the field Retry-After (RFC 9110, section 10.2.3). Zero means
// that there is none.
func askedToWait(field string) time.Duration {
	wait := time.Duration(0)
	if seconds, err := strconv.ParseUint(field, 10, 32); err == nil || errors.Is(err, strconv.ErrRange) {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(field); err == nil {
		wait = time.Until(at)
	}
	return min(max(wait, 0), collectorMaxPause)
}

// partialError tells of spans that a collector did not take out of those that it
// took. They are not to be sent again.
type partialError struct {
	rejected int64
	why      string
}

func (e *partialError) Error() string {
	return fmt.Sprintf("the collector rejects %d spans: %q", e.rejected, e.why)
}

// partial reads an ExportTraceServiceResponse.
func (c *collector) partial(answer []byte) error {
	var err error
	walkMessage(answer, func(number protowire.Number, _ uint64, value []byte) {
		if number != 1 { // partial_success
			return
		}
		// With none rejected it is a warning, and no span is lost.
		if rejected, why := c.said(value); rejected > 0 {
			err = &partialError{rejected, why}
		}
	})
	return err
}

// said reads an ExportTracePartialSuccess or a google.rpc.Status: both have a
// number in field 1 and a text in field 2.
func (c *collector) said(b []byte) (number int64, text string) {
	walkMessage(b, func(field protowire.Number, varint uint64, value []byte) {
		switch field {
		case 1:
			number = int64(varint)
		case 2:
			text = c.secret.Replace(string(value))
		}
	})
	return number, strings.ToValidUTF8(text[:min(len(text), collectorText)], "")
}

// walkMessage calls each for every field of a protobuf message that holds a varint or
// bytes, up to where it is malformed.
func walkMessage(b []byte, each func(number protowire.Number, varint uint64, value []byte)) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return
		}
		switch kind {
		case protowire.VarintType:
			v, _ := protowire.ConsumeVarint(b)
			each(number, v, nil)
		case protowire.BytesType:
			v, _ := protowire.ConsumeBytes(b)
			each(number, 0, v)
		}
		b = b[n:]
	}
}

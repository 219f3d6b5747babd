package gateway

import (
	"encoding/binary"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// AccessLog writes the records of requests as slog's handlers would, byte for
// byte, at a fraction of their cost and many in one write.
type AccessLog struct {
	out   *LogBuffer
	json  bool
	lines sync.Pool // of *[]byte
}

// NewAccessLog returns an AccessLog that writes to out, as JSON or as slog's text.
func NewAccessLog(out *LogBuffer, json bool) *AccessLog { return &AccessLog{out: out, json: json} }

// record writes one record.
func (l *AccessLog) record(at time.Time, level slog.Level, message string, attrs []slog.Attr) {
	line, _ := l.lines.Get().(*[]byte)
	if line == nil {
		line = new([]byte)
	}
	if l.json {
		*line = appendJSONRecord((*line)[:0], at, level, message, attrs)
	} else {
		*line = appendTextRecord((*line)[:0], at, level, message, attrs)
	}
	l.out.record(*line)
	if cap(*line) <= maxKeptLine {
		l.lines.Put(line)
	}
}

const maxKeptLine = 16 << 10

// Keys are written as they are: they are ours, and nothing in them needs escaping.
func appendJSONRecord(dst []byte, at time.Time, level slog.Level, message string, attrs []slog.Attr) []byte {
	dst = append(dst, `{"time":"`...)
	dst = at.AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","level":"`...)
	dst = append(dst, level.String()...)
	dst = append(dst, `","msg":`...)
	dst = appendJSONString(dst, message)
	for i := range attrs {
		a := &attrs[i]
		dst = append(append(append(dst, `,"`...), a.Key...), `":`...)
		switch a.Value.Kind() {
		case slog.KindInt64:
			dst = strconv.AppendInt(dst, a.Value.Int64(), 10)
		case slog.KindFloat64:
			dst = appendJSONFloat(dst, a.Value.Float64())
		default:
			dst = appendJSONString(dst, a.Value.String())
		}
	}
	return append(dst, "}\n"...)
}

func appendTextRecord(dst []byte, at time.Time, level slog.Level, message string, attrs []slog.Attr) []byte {
	dst = append(dst, "time="...)
	dst = at.AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
	dst = append(dst, " level="...)
	dst = append(dst, level.String()...)
	dst = append(dst, " msg="...)
	dst = appendText(dst, message)
	for i := range attrs {
		a := &attrs[i]
		dst = append(append(append(dst, ' '), a.Key...), '=')
		switch a.Value.Kind() {
		case slog.KindInt64:
			dst = strconv.AppendInt(dst, a.Value.Int64(), 10)
		case slog.KindFloat64:
			dst = strconv.AppendFloat(dst, a.Value.Float64(), 'g', -1, 64)
		default:
			dst = appendText(dst, a.Value.String())
		}
	}
	return append(dst, '\n')
}

// appendJSONFloat writes a finite number as encoding/json does.
func appendJSONFloat(dst []byte, f float64) []byte {
	if size := math.Abs(f); size == 0 || 1e-6 <= size && size < 1e21 {
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	if n := len(dst); n >= 4 && dst[n-4] == 'e' && dst[n-2] == '0' { // e-09 is e-9
		dst = append(dst[:n-2], dst[n-1])
	}
	return dst
}

// appendJSONString writes a string so that nothing in it can end it. Bytes that
// are not UTF-8 become U+FFFD.
func appendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	begin := len(dst)
	if dst = append(dst, s...); !tame(dst[begin:], ' ', '"', '\\') {
		dst = appendEscaped(dst[:begin], s)
	}
	return append(dst, '"')
}

func appendEscaped(dst []byte, s string) []byte {
	begin := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		size := 1
		var escaped string
		switch {
		case c >= utf8.RuneSelf:
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && size == 1:
				escaped = `\ufffd`
			case r == '\u2028': // ends a line for whoever takes JSON for JavaScript
				escaped = `\u2028`
			case r == '\u2029':
				escaped = `\u2029`
			}
		case c == '\n':
			escaped = `\n`
		case c == '\r':
			escaped = `\r`
		case c == '\t':
			escaped = `\t`
		case c == '"':
			escaped = `\"`
		case c == '\\':
			escaped = `\\`
		}
		if escaped != "" || c < ' ' {
			dst = append(append(dst, s[begin:i]...), escaped...)
			if escaped == "" {
				const hex = "0123456789abcdef"
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			begin = i + size
		}
		i += size
	}
	return append(dst, s[begin:]...)
}

// appendText writes a string as it is, or in quotes if it could be taken for
// more than a value.
func appendText(dst []byte, s string) []byte {
	begin := len(dst)
	if dst = append(dst, s...); s != "" && (tame(dst[begin:], '!', '"', '=') || strings.IndexFunc(s, mustQuote) < 0) {
		return dst
	}
	return strconv.AppendQuote(dst[:begin], s)
}

func mustQuote(r rune) bool {
	return r <= ' ' || r == '"' || r == '=' || r == utf8.RuneError || r >= utf8.RuneSelf && (unicode.IsSpace(r) || !unicode.IsPrint(r))
}

// tame reports whether b is ASCII from low on, without x and y. It looks at eight
// bytes at a time.
func tame(b []byte, low, x, y byte) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	if len(b) < 8 {
		for _, c := range b {
			if c < low || c >= 0x80 || c == x || c == y {
				return false
			}
		}
		return true
	}
	lows, xs, ys := uint64(low)*ones, uint64(x)*ones, uint64(y)*ones
	// The highest bit of a byte is set where one is not ASCII, or below low, or x, or
	// y. The subtractions borrow from the next byte only where they find one.
	var found uint64
	for i := 0; i < len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[min(i, len(b)-8):]) // the last one overlaps
		found |= w | (w - lows) | ((w ^ xs) - ones) | ((w ^ ys) - ones)
	}
	return found&highs == 0
}

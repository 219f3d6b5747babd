package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The functions below are the parse of a format.

func matching(pattern string) func(text, dir string) (any, error) {
	return func(text, _ string) (any, error) {
		if !regexp.MustCompile(whole(pattern)).MatchString(text) {
			return nil, errForm
		}
		return text, nil
	}
}

func parseBool(text, _ string) (any, error) {
	if text != "true" && text != "false" {
		return nil, errForm
	}
	return text == "true", nil
}

func parseInt(text, _ string) (any, error) {
	n, err := strconv.Atoi(text)
	if errors.Is(err, strconv.ErrRange) {
		return nil, errors.New("is out of range")
	}
	if err != nil {
		return nil, errForm
	}
	return n, nil
}

func parseRatio(text, _ string) (any, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f >= 0 && f <= 1) {
		return nil, errForm
	}
	return f, nil
}

func parseSize(text, _ string) (any, error) {
	digits := strings.TrimRight(text, "BKMGi")
	unit, known := map[string]int64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[text[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 63)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && known && int64(n) > math.MaxInt64/unit:
		return nil, errors.New("is out of range")
	case err != nil, !known:
		return nil, errForm
	}
	return int64(n) * unit, nil
}

// parseDuration accepts what time.ParseDuration does but for signs, and days of
// 24 hours before it.
func parseDuration(text, _ string) (any, error) {
	if strings.ContainsAny(text, "+-") {
		return nil, errForm
	}
	var total time.Duration
	if days, rest, found := strings.Cut(text, "d"); found {
		n, err := strconv.ParseUint(days, 10, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return nil, errForm
		}
		if n > 100*365 {
			return nil, errors.New("is out of range")
		}
		if total = time.Duration(n) * 24 * time.Hour; rest == "" {
			return total, nil
		}
		text = rest
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, errForm
	}
	if total+d < total {
		return nil, errors.New("is out of range")
	}
	return total + d, nil
}

// parseLevel makes a level of the names that the other parse accepts.
func parseLevel(parse func(text, dir string) (any, error)) func(text, dir string) (any, error) {
	return func(text, dir string) (any, error) {
		if _, err := parse(text, dir); err != nil {
			return nil, err
		}
		var level slog.Level
		err := level.UnmarshalText([]byte(text))
		return level, err
	}
}

func parseAddress(text, _ string) (any, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil || !regexp.MustCompile(whole(hostPattern+`|`)).MatchString(host) {
		return nil, errForm
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return nil, errors.New("has no port from 0 to 65535")
	}
	return text, nil
}

func parseNetwork(text, _ string) (any, error) {
	p, err := netip.ParsePrefix(text)
	if addr, notOne := netip.ParseAddr(text); notOne == nil && addr.Zone() == "" {
		p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		return nil, errForm
	}
	if p.Addr().Is4In6() { // and would match nobody: peers are known by the other form
		return nil, errors.New("is IPv4 within IPv6; write the IPv4 address or network alone")
	}
	if p != p.Masked() {
		return nil, fmt.Errorf("is an address within a network; write %s", p.Masked())
	}
	if p.Bits() == 0 {
		return nil, errors.New("is everybody; name the networks of your proxies")
	}
	return p, nil
}

// parseHTTP parses an absolute URL of a web server. Its errors don't show the
// text, which may hold a password.
func parseHTTP(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errForm
	}
	if _, err := matching(hostPattern)(u.Hostname(), ""); err != nil {
		return nil, errForm
	}
	if _, err := strconv.ParseUint(cmp.Or(u.Port(), "0"), 10, 16); err != nil || strings.HasSuffix(u.Host, ":") {
		return nil, errors.New("has no port from 0 to 65535")
	}
	if u.User != nil {
		return nil, errors.New("must not hold a user name or password")
	}
	return u, nil
}

func parseURL(text, _ string) (any, error) {
	if _, err := parseHTTP(text); err != nil {
		return nil, err
	}
	if strings.ContainsAny(text, "?#") {
		return nil, errors.New("must not have a query or fragment")
	}
	return text, nil // as written: an issuer is compared byte by byte
}

func parseLink(text, _ string) (any, error) {
	const stand = "token"
	u, err := parseHTTP(strings.ReplaceAll(text, "{token}", stand))
	if err != nil {
		return nil, err
	}
	before, _, found := strings.Cut(text, "{token}")
	if !found || strings.Count(text, "{token}") > 1 {
		return nil, errors.New("must contain {token} once")
	}
	if len(before) < len(u.Scheme+"://"+u.Host) {
		return nil, errors.New("must contain {token} after the host")
	}
	return text, nil
}

func parseOrigin(text, _ string) (any, error) {
	u, err := parseHTTP(text)
	if err != nil {
		return nil, err
	}
	if u.Path != "" || strings.ContainsAny(text, "?#") {
		return nil, errors.New("must end after the host and port: requests keep their path")
	}
	return u, nil
}

func parsePath(text, _ string) (any, error) {
	if text == "/" {
		return text, nil
	}
	if strings.HasSuffix(text, "/") {
		return nil, errors.New("must not end with a slash")
	}
	if !regexp.MustCompile(whole(`(/` + segment + `)+`)).MatchString(text) {
		return nil, errForm
	}
	for s := range strings.SplitSeq(text[1:], "/") {
		switch {
		case s == ".", s == "..":
			return nil, errors.New("must not have . or .. segments")
		case s == "*", strings.HasPrefix(s, ":"):
			return nil, errors.New("is a prefix, not a pattern: it has no * or :name segments")
		}
	}
	return text, nil
}

func parseMailbox(text, _ string) (any, error) {
	if _, err := mail.ParseAddress(text); err != nil {
		return nil, errForm
	}
	return text, nil
}

func parseStore(text, dir string) (any, error) {
	if name, ok := strings.CutPrefix(text, "file:"); ok && name != "" {
		if strings.HasPrefix(name, "//") && !strings.HasPrefix(name, "///") {
			return nil, errors.New("names a host between file:// and the path; write file:PATH")
		}
		return Store{File: inDir(name, dir)}, nil
	}
	for _, scheme := range []string{"mongodb://", "mongodb+srv://"} {
		if rest, ok := strings.CutPrefix(text, scheme); ok && rest != "" && rest[0] != '/' {
			return Store{MongoDB: NewSecret(text)}, nil
		}
	}
	return nil, errForm
}

// inDir returns the name of a file that is given relative to dir.
func inDir(name, dir string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(dir, name)
}

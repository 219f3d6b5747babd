package gateway

import (
	"bytes"
	"net"
	"net/http"

	"github.com/go-json-experiment/json"
)

// RedirectHandler answers requests over plain HTTP with 308 to the same host, path and
// query at https, on that port; no body is read. It refuses what the edge would refuse,
// and hosts that are not ours, so that nobody is sent elsewhere by our word.
func RedirectHandler(port string, ours func(host string) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		path, query, _ := bytes.Cut([]byte(r.RequestURI), []byte{'?'})
		_, pathErr := canonicalPath(nil, path)
		if r.Host == "" || !validHost([]byte(r.Host)) || !ours(trimBrackets(host)) || pathErr != nil || !validQuery(query) {
			refuseRedirect(w)
			return
		}
		if host = trimBrackets(host); port != "443" {
			host = net.JoinHostPort(host, port)
		} else if bytes.ContainsRune([]byte(host), ':') {
			host = "[" + host + "]"
		}
		w.Header().Set("Location", "https://"+host+r.RequestURI)
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}

func trimBrackets(host string) string {
	if len(host) > 1 && host[0] == '[' {
		return host[1 : len(host)-1]
	}
	return host
}

func refuseRedirect(w http.ResponseWriter) {
	row := codeMalformedRequest.row()
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set(fieldGatewayError, string(row.code))
	w.WriteHeader(row.status)
	_ = json.MarshalWrite(w, problem{ // a client that has left needs no answer
		Type: "about:blank", Title: http.StatusText(row.status), Status: row.status,
		Detail: row.detail, Code: row.code, RequestID: newRequestID(),
	})
}

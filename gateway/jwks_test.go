package gateway

import "testing"

func TestTheKeysCanBeCached(t *testing.T) {
	e := startGateway(t)
	res, body := e.send(get(jwksPath))
	etag := res.Header.Get("ETag")
	if res.StatusCode != 200 || etag == "" || res.Header.Get("Cache-Control") != "public, max-age=300" {
		t.Fatalf("%d %v %s", res.StatusCode, res.Header, body)
	}
	for field, status := range map[string]int{
		"If-None-Match: " + etag:             304,
		"If-None-Match: W/" + etag:           304,
		`If-None-Match: "other", ` + etag:    304,
		"If-None-Match: *":                   304,
		`If-None-Match: "other"`:             200,
		"If-None-Match: " + etag[1:]:         200,
		"If-None-Match:":                     200,
		"If-Modified-Since: not a condition": 200,
	} {
		res, again := e.send(get(jwksPath, field))
		if res.StatusCode != status || (again == body) != (status == 200) || status == 304 && again != "" {
			t.Errorf("%s: %d %q", field, res.StatusCode, again)
		}
		if res.Header.Get("ETag") != etag || res.Header.Get("Cache-Control") == "" {
			t.Errorf("%s: %v", field, res.Header)
		}
	}
}

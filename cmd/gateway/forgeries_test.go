package main

import (
	"bufio"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A forger makes assertions that are none out of one of a real gateway. It knows even the
// gateway's key: what is signed well can still be for somebody else, or of another time.
type forger struct {
	issuer            string // address of the keys
	good, accessToken string
	subject           string
	key               ed25519.PrivateKey
}

// signingKey reads the one key of a gateway that has been started.
func signingKey(t *testing.T, dir string) ed25519.PrivateKey {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil || len(files) != 1 {
		t.Fatalf("keys: %v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(ed25519.PrivateKey)
}

type members = map[string]any

// changed is the good assertion with other members in its header and its claims (nil takes
// one away), signed by sign.
func (f *forger) changed(t *testing.T, header, claims members, sign func(text string) []byte) string {
	t.Helper()
	parts := strings.Split(f.good, ".")
	for i, change := range []members{header, claims} {
		var object members
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, &object)
		}
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(object, change)
		maps.DeleteFunc(object, func(_ string, value any) bool { return value == nil })
		if text, err = json.Marshal(object); err != nil {
			t.Fatal(err)
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(text)
	}
	text := parts[0] + "." + parts[1]
	return text + "." + base64.RawURLEncoding.EncodeToString(sign(text))
}

func (f *forger) byGateway(text string) []byte { return ed25519.Sign(f.key, []byte(text)) }

func byNobody(string) []byte { return nil }

// bySecret signs with what everybody has, taken for a secret.
func bySecret(secret []byte) func(string) []byte {
	return func(text string) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
}

// forgeries are header values, by what is wrong with them, for the service "tasks".
func (f *forger) forgeries(t *testing.T) map[string][]string {
	t.Helper()
	public := f.key.Public().(ed25519.PublicKey)
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	stranger, strangers, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	byStranger := func(text string) []byte { return ed25519.Sign(strangers, []byte(text)) }
	jwk := members{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(stranger)}
	head, rest, _ := strings.Cut(f.good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	flipped := signature[:10] + string(signature[10]^1) + signature[11:]
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }

	cases := map[string][]string{
		"none":                              {},
		"two":                               {f.good, f.good},
		"an empty one":                      {""},
		"not a token":                       {"ana"},
		"a client's token of the same keys": {f.accessToken},
		"a broken signature":                {head + "." + payload + "." + flipped},
		"no signature":                      {head + "." + payload + "."},
		"no place for a signature":          {head + "." + payload},
		"another payload":                   {head + ".eyJzdWIiOiJyb290In0." + signature},
	}
	for name, c := range map[string]struct {
		header, claims members
		sign           func(string) []byte
	}{
		"no algorithm":                     {members{"alg": "none"}, nil, byNobody},
		"no algorithm, and no key":         {members{"alg": "none", "kid": nil}, nil, byNobody},
		"no algorithm, in other letters":   {members{"alg": "nOnE"}, nil, byNobody},
		"no algorithm, and a signature":    {members{"alg": "none"}, nil, f.byGateway},
		"the public key as a secret":       {members{"alg": "HS256"}, nil, bySecret(public)},
		"its DER as a secret":              {members{"alg": "HS256"}, nil, bySecret(spki)},
		"its PEM as a secret":              {members{"alg": "HS256"}, nil, bySecret(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))},
		"nothing as a secret":              {members{"alg": "HS256"}, nil, bySecret(nil)},
		"another algorithm than the key's": {members{"alg": "ES256"}, nil, f.byGateway},
		"an algorithm nobody knows":        {members{"alg": "EdDSA2"}, nil, f.byGateway},
		"no word of the algorithm":         {members{"alg": nil}, nil, f.byGateway},
		"a stranger's key":                 {nil, nil, byStranger},
		"a stranger's key, brought along":  {members{"jwk": jwk}, nil, byStranger},
		"a key nobody knows":               {members{"kid": "none"}, nil, byStranger},
		"a key that only its name changes": {members{"kid": "none"}, nil, f.byGateway},
		"what has to be understood":        {members{"crit": []string{"x"}, "x": true}, nil, f.byGateway},
		"nothing to be understood":         {members{"crit": []string{}}, nil, f.byGateway},
		"a payload that is not encoded":    {members{"crit": []string{"b64"}, "b64": true}, nil, f.byGateway},
		"another type":                     {members{"typ": "JWT"}, nil, f.byGateway},
		"an access token's type":           {members{"typ": "at+jwt"}, nil, f.byGateway},
		"no type":                          {members{"typ": nil}, nil, f.byGateway},
		"for another service":              {nil, members{"aud": "billing"}, f.byGateway},
		"for other services":               {nil, members{"aud": []string{"billing", "tasks2"}}, f.byGateway},
		"for clients":                      {nil, members{"aud": "api"}, f.byGateway},
		"for nobody":                       {nil, members{"aud": nil}, f.byGateway},
		"for an empty list":                {nil, members{"aud": []string{}}, f.byGateway},
		"another issuer":                   {nil, members{"iss": "http://localhost:8081"}, f.byGateway},
		"an issuer that begins so":         {nil, members{"iss": "http://localhost:8080/"}, f.byGateway},
		"no issuer":                        {nil, members{"iss": nil}, f.byGateway},
		"ended":                            {nil, members{"iat": ago(2 * time.Hour), "exp": ago(time.Hour)}, f.byGateway},
		"ended in this minute":             {nil, members{"iat": ago(5 * time.Minute), "exp": ago(2 * time.Second)}, f.byGateway},
		"without an end":                   {nil, members{"exp": nil}, f.byGateway},
		"an end that is no number":         {nil, members{"exp": "tomorrow"}, f.byGateway},
		"without a beginning":              {nil, members{"iat": nil}, f.byGateway},
		"of nobody":                        {nil, members{"sub": nil}, f.byGateway},
		"of somebody without a name":       {nil, members{"sub": ""}, f.byGateway},
	} {
		cases[name] = []string{f.changed(t, c.header, c.claims, c.sign)}
	}
	return cases
}

// A verifier says "ok" and of whom an assertion is, or "no" and why.
type verifier func(fields ...string) string

// against asks the verifier of a service about every forgery, and about what is none.
func (f *forger) against(t *testing.T, start func(audience string) verifier) {
	t.Helper()
	ask := start("tasks")
	for name, good := range map[string]string{"a good one": f.good, "the same again": f.good, "one more of this key": f.changed(t, nil, nil, f.byGateway)} {
		if got := ask(good); got != "ok "+f.subject {
			t.Errorf("%s: %s", name, got)
		}
	}
	for name, fields := range f.forgeries(t) {
		if got := ask(fields...); got != "no" && !strings.HasPrefix(got, "no ") {
			t.Errorf("%s: %s", name, got)
		}
	}
	// After all that it has not lost its keys.
	if got := ask(f.good); got != "ok "+f.subject {
		t.Errorf("a good one after those that are not: %s", got)
	}
	if got := start("billing")(f.good); got != "no" && !strings.HasPrefix(got, "no ") {
		t.Errorf("as another service: %s", got)
	}
}

// program is a verifier that reads a JSON array of header values a line.
func (f *forger) program(t *testing.T, cmd *exec.Cmd) func(string) verifier {
	return func(audience string) verifier { t.Helper(); return f.run(t, *cmd, audience) }
}

func (f *forger) run(t *testing.T, run exec.Cmd, audience string) verifier {
	t.Helper()
	run.Args = append(append([]string{}, run.Args...), f.issuer+jwksPath, "http://localhost:8080", audience)
	in, err := run.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	run.Stderr = os.Stderr
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(out)
	t.Cleanup(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, answers)
		if err := run.Wait(); err != nil {
			t.Error(err)
		}
	})
	return func(fields ...string) string {
		t.Helper()
		line, err := json.Marshal(append([]string{}, fields...))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(append(line, '\n')); err != nil {
			t.Fatal(err)
		}
		got, err := answers.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(got, "\n")
	}
}

// taskManager is the bundled service, which tells nobody who they are.
func (f *forger) taskManager(t *testing.T) func(string) verifier {
	return func(audience string) verifier {
		t.Helper()
		addr, log := freeAddr(t), &lockedBuffer{}
		background(t, os.Environ(), log, "taskmanager", "-listen", addr, "-store", "file:"+filepath.Join(t.TempDir(), "tasks.db"), "-jwks", f.issuer+jwksPath, "-audience", audience)
		waitFor(t, log, addr)
		return func(fields ...string) string {
			t.Helper()
			r, err := http.NewRequest(http.MethodGet, "http://"+addr+"/tasks", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header["X-Identity-Assertion"] = fields
			res, err := (&http.Client{Timeout: patience}).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			switch res.StatusCode {
			case http.StatusOK:
				return "ok " + f.subject
			case http.StatusUnauthorized:
				return "no"
			}
			return res.Status
		}
	}
}

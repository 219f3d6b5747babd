package identity

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestRefreshTokenIsReadBack(t *testing.T) {
	c := refreshCodec{key: []byte("0123456789abcdef0123456789abcdef")}
	for _, counter := range []int64{0, 1, 255, 1 << 40, 1<<63 - 1} {
		id := newID()
		token, err := c.encode(id, counter)
		if err != nil {
			t.Fatal(err)
		}
		if gotID, got, err := c.decode(token); gotID != id || got != counter || err != nil {
			t.Errorf("%s/%d came back as %s/%d, %v", id, counter, gotID, got, err)
		}
		if again, _ := c.encode(id, counter); again != token {
			t.Errorf("the same session and counter gave two tokens")
		}
	}
	if _, err := c.encode("no UUID", 1); err == nil {
		t.Error("a session id that is no UUID is encoded")
	}
}

func TestRefreshTokenIsOnlyWhatWeEncoded(t *testing.T) {
	c := refreshCodec{key: []byte("0123456789abcdef0123456789abcdef")}
	id := newID()
	token, err := c.encode(id, 7)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := refreshCodec{key: []byte("another key")}.encode(id, 7)
	body := token[len(refreshPrefix):]
	raw, _ := base64.RawURLEncoding.DecodeString(body)
	rebuilt := func(change func([]byte)) string {
		b := append([]byte{}, raw...)
		change(b)
		return refreshPrefix + base64.RawURLEncoding.EncodeToString(b)
	}
	// The last of 55 characters holds two bits that mean nothing.
	lastBits := func() string {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		i := strings.IndexByte(alphabet, token[len(token)-1])
		return token[:len(token)-1] + string(alphabet[i^1])
	}
	for name, forged := range map[string]string{
		"empty":                             "",
		"prefix only":                       refreshPrefix,
		"another key":                       other,
		"next counter":                      rebuilt(func(b []byte) { b[refreshBody-1]++ }),
		"another session":                   rebuilt(func(b []byte) { b[5] ^= 1 }),
		"another version":                   rebuilt(func(b []byte) { b[0] = 2 }),
		"MAC cut to nothing":                rebuilt(func(b []byte) { clear(b[refreshBody:]) }),
		"one bit of the MAC":                rebuilt(func(b []byte) { b[len(b)-1] ^= 1 }),
		"no prefix":                         body,
		"another prefix":                    "xrt_" + body,
		"upper-case prefix":                 "PRT_" + body,
		"with padding":                      token + "=",
		"with a space":                      token + " ",
		"cut short":                         token[:len(token)-1],
		"doubled":                           token + token,
		"other bits at the end":             lastBits(),
		"standard alphabet":                 refreshPrefix + base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\xff", len(raw)))),
		"line breaks alone":                 refreshPrefix + strings.Repeat("\n", len(body)),
		"line breaks in the place of bytes": token[:len(token)-4] + "\r\n\r\n",
		"NULs":                              refreshPrefix + strings.Repeat("\x00", len(body)),
		"an access token":                   "eyJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl",
		"a megabyte":                        refreshPrefix + strings.Repeat("A", 1<<20),
	} {
		if _, _, err := c.decode(forged); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRefreshToken(f *testing.F) {
	c := refreshCodec{key: []byte("0123456789abcdef0123456789abcdef")}
	token, err := c.encode(uuid.Max.String(), 3)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add(refreshPrefix + strings.Repeat("\n", len(token)-len(refreshPrefix)))
	f.Add(refreshPrefix + strings.Repeat("A", len(token)-len(refreshPrefix)))
	f.Fuzz(func(t *testing.T, s string) {
		id, counter, err := c.decode(s)
		if err != nil {
			if !errors.Is(err, ErrTokenInvalid) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		// There is one spelling of a token, and it is ours.
		if again, err := c.encode(id, counter); err != nil || again != s {
			t.Errorf("%q is read as %q (%v)", s, again, err)
		}
	})
}

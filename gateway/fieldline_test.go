package gateway

import (
	"bytes"
	"testing"
)

// everyByte calls visit for values of all lengths around the words that are looked at
// at a time, with each byte at each place, alone and beside another.
func everyByte(visit func(value []byte)) {
	for size := range 26 {
		visit(bytes.Repeat([]byte{'a'}, size))
		for at := range size {
			for c := range 256 {
				for _, fill := range []byte{'a', '~', ' ', 0x00, 0xff, 0x80, '!'} {
					value := bytes.Repeat([]byte{'a'}, size)
					value[(at+1)%size], value[at] = fill, byte(c)
					visit(value)
				}
			}
		}
	}
}

func TestPrintableLooksAtEachByte(t *testing.T) {
	everyByte(func(value []byte) {
		want := true
		for _, c := range value {
			want = want && (c == '\t' || c >= ' ' && c != 0x7f)
		}
		if got := printable(value); got != want {
			t.Fatalf("%q: %v", value, got)
		}
	})
}

func TestTameLooksAtEachByte(t *testing.T) {
	for _, what := range []struct{ low, x, y byte }{{' ', '"', '\\'}, {'!', '"', '='}} {
		everyByte(func(value []byte) {
			want := true
			for _, c := range value {
				want = want && what.low <= c && c < 0x80 && c != what.x && c != what.y
			}
			if got := tame(value, what.low, what.x, what.y); got != want {
				t.Fatalf("%+v: %q: %v", what, value, got)
			}
		})
	}
}

func TestTrimOWS(t *testing.T) {
	for _, value := range []string{"", " ", "\t \t", "a", " a", "a\t", "\t a b\t ", "\n", " \u00a0", "\x00 "} {
		got, want := trimOWS([]byte(value)), bytes.Trim([]byte(value), " \t")
		if !bytes.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%q: %#v, want %#v", value, got, want)
		}
	}
}

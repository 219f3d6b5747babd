package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestWhatOpensToEverybodyIsAcknowledgedExactlyAndAnew(t *testing.T) {
	const running = `p, role:user, /reports/*, GET|POST, allow
p, anonymous, /status, GET, allow
`
	for _, test := range []struct {
		name, before, after string
		want                []string // of each problem: line, and parts of its text
	}{
		{"nothing opens", running, running + "p, role:admin, /admin/*, *, allow", nil},
		{"closing is nobody's surprise", running, "p, role:user, /reports/*, GET, allow", nil},
		{"a rule for everybody", running, running + "p, anonymous, /reports/*, GET, allow",
			[]string{"3: opens to everybody: anonymous GET /reports/*; if that is meant, add the line: # acknowledge: anonymous GET /reports/*"}},
		{"acknowledged", running, running + "# acknowledge: anonymous GET /reports/*\np, anonymous, /reports/*, GET, allow", nil},
		{"acknowledged with a note and odd spacing", running, running + "#acknowledge:  anonymous  GET /reports/* #  asked for by finance\np, anonymous, /reports/*, GET, allow", nil},
		{"a wider acknowledgement is for something else", running, running + "# acknowledge: anonymous * /*\np, anonymous, /reports/*, GET, allow",
			[]string{"opens to everybody: anonymous GET /reports/*"}},
		{"so is one for another method", running, running + "# acknowledge: anonymous GET /reports/*\np, anonymous, /reports/*, POST, allow",
			[]string{"opens to everybody: anonymous POST /reports/*"}},
		{"and one for a path that only begins like it", running, running + "# acknowledge: anonymous GET /reports/*\np, anonymous, /reports, GET, allow",
			[]string{"opens to everybody: anonymous GET /reports"}},
		{"an acknowledgement that is a part of a longer word", running, running + "# acknowledge: anonymous GET /reports/*x\np, anonymous, /reports/*, GET, allow",
			[]string{"opens to everybody: anonymous GET /reports/*"}},
		{"a quoted acknowledgement is none", running, running + "# do not write acknowledge: anonymous GET /reports/*\np, anonymous, /reports/*, GET, allow",
			[]string{"opens to everybody: anonymous GET /reports/*"}},
		{"of two holes each wants its own", running, running + "# acknowledge: anonymous GET /a\np, anonymous, /a, GET, allow\np, anonymous, /b, GET, allow",
			[]string{"5: opens to everybody: anonymous GET /b"}},
		{"an old acknowledgement does not cover a new hole", running + "# acknowledge: anonymous GET /reports/*\n", running + "# acknowledge: anonymous GET /reports/*\np, anonymous, /reports/*, GET, allow",
			[]string{"the acknowledgement in line 3 is not new"}},
		{"until it is made anew", running + "# acknowledge: anonymous GET /reports/*\n", running + "# acknowledge: anonymous GET /reports/* # again, in May\np, anonymous, /reports/*, GET, allow", nil},
		{"and one whose hole is open is history", running + "# acknowledge: anonymous GET /reports/*\np, anonymous, /reports/*, GET, allow", running + "# acknowledge: anonymous GET /reports/*\np, anonymous, /reports/*, GET, allow\n", nil},
		{"by inheritance", running, running + "g, anonymous, role:user", []string{"opens to everybody: anonymous GET|POST /reports/*"}},
		{"by inheritance over two lines", running, running + "g, anonymous, role:guest\ng, role:guest, role:user", []string{"anonymous GET|POST /reports/*"}},
		{"because a denial goes", "p, anonymous, /a/*, *, allow\np, anonymous, /a/b, *, deny", "p, anonymous, /a/*, *, allow", []string{"1: opens to everybody: anonymous * /a/b"}},
		{"but for a part", running, running + "p, anonymous, /reports/*, GET, allow\np, anonymous, /reports/pay, GET, deny",
			[]string{"opens to everybody: anonymous GET /reports/* except /reports/pay"}},
		{"a part as such acknowledged", running, running + "# acknowledge: anonymous GET /reports/* except /reports/pay\np, anonymous, /reports/*, GET, allow\np, anonymous, /reports/pay, GET, deny", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := mustParse(t, test.after).CheckOpened(mustParse(t, test.before))
			if len(got) != len(test.want) {
				t.Fatalf("problems are %v, want %d", got, len(test.want))
			}
			for i, want := range test.want {
				if text := fmt.Sprintf("%d: %s; %s", got[i].Line, got[i].Message, got[i].Hint); !strings.Contains(text, want) {
					t.Errorf("got  %s\nwant %s", text, want)
				}
			}
		})
	}
	if got := mustParse(t, running).CheckOpened(nil); got != nil {
		t.Errorf("without a running policy: %v", got)
	}
}

func TestWhatCannotBeComparedIsAcknowledgedAsAWhole(t *testing.T) {
	var b strings.Builder
	for i := range 24 {
		segments := make([]string, 24)
		for j := range segments {
			segments[j] = fmt.Sprintf(":x%d", j)
		}
		segments[i] = "a"
		fmt.Fprintf(&b, "p, anonymous, /%s, GET, allow\n", strings.Join(segments, "/"))
	}
	running, after := mustParse(t, b.String()), b.String()+"p, anonymous, /*, PUT, allow\n"
	if got := mustParse(t, after).CheckOpened(running); len(got) != 1 || !strings.Contains(got[0].Message, "cannot be told") {
		t.Errorf("got %v", got)
	}
	if got := mustParse(t, after+"# acknowledge: anonymous * /*").CheckOpened(running); got != nil {
		t.Errorf("got %v", got)
	}
}

// No request opens to a stranger without a problem, and what the hints say is
// enough to acknowledge it.
func TestNothingOpensUnnoticed(t *testing.T) {
	seeds := uint64(400)
	if raceDetector {
		seeds = 40
	}
	holes := 0
	for seed := range seeds {
		d := randomDice(seed)
		g := generate(d)
		other := generate(d)
		before, after := mustCompile(t, g.source), mustCompile(t, other.source)
		problems := after.CheckOpened(before)
		opens := false
		for _, path := range slices.Concat(g.paths, other.paths) {
			for _, method := range slices.Concat(g.methods, other.methods) {
				opens = opens || !before.Decide(Caller{}, method, path).Allowed && after.Decide(Caller{}, method, path).Allowed
			}
		}
		if opens {
			holes++
			if problems == nil {
				t.Fatalf("seed %d: a hole and no problem\n%s-----\n%s", seed, g.source, other.source)
			}
		}
		acknowledged := other.source + "\n"
		for _, p := range problems {
			_, line, _ := strings.Cut(p.Hint, "add the line: ")
			acknowledged += line + "\n"
		}
		if rest := mustCompile(t, acknowledged).CheckOpened(before); rest != nil {
			t.Fatalf("seed %d: still %v\n%s", seed, rest, acknowledged)
		}
	}
	if holes < int(seeds)/10 {
		t.Errorf("only %d of %d opened anything: the test says little", holes, seeds)
	}
}

// A reload of a million rules, of which few are about strangers, asks in time.
func BenchmarkCheckOpened(b *testing.B) {
	var text strings.Builder
	for i := range 1_000_000 {
		fmt.Fprintf(&text, "p, role:r%d, /t%d/:id/s%d, GET, allow\n", i%1000, i%5000, i)
	}
	before, err := Parse("old.csv", []byte(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	after, err := Parse("new.csv", []byte(text.String()+"p, anonymous, /open/*, GET, allow\n"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if got := after.CheckOpened(before); len(got) != 1 {
			b.Fatal(got)
		}
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// until repeats ask until it says yes.
func until(t *testing.T, what string, ask func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ask(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// signedBy is the key that a token names.
func signedBy(t *testing.T, token string) string {
	t.Helper()
	parsed, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(parsed.Header["kid"])
}

// Two gateways that share a directory of keys: a key is rotated and the old one
// withdrawn while they issue, and what either issues is believed by both.
func TestReplicasFollowTheKeysOfTheirDirectory(t *testing.T) {
	uri, dir, tasks := testDatabase(t), t.TempDir(), okUpstream(t)
	a, b := startReplica(t, dir, uri, tasks), startReplica(t, dir, uri, tasks)
	replicas := []*replica{a, b}
	keys := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command("gateway", append([]string{"keys", "--output", "json", "-c", "../../gateway.yaml"}, args...)...)
		cmd.Env = append(os.Environ(), "GATEWAY_IDENTITY_TOKENS_KEYS="+filepath.Join(dir, "keys"))
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("keys %v: %v", args, err)
		}
		return out
	}
	var tokens []string
	issue := func() {
		t.Helper()
		for i, r := range replicas {
			tokens = append(tokens, r.signIn([]string{"ana", "bob"}[i]))
		}
	}
	believed := func() {
		t.Helper()
		for i, token := range tokens {
			for j, r := range replicas {
				if status, answer, _ := r.ask("GET", "/tasks", token, ""); status != 200 {
					t.Errorf("token %d at gateway %d: %d %v", i, j, status, answer)
				}
			}
		}
	}
	issue()
	old := signedBy(t, tokens[0])

	var made []struct{ ID, File string }
	if err := json.Unmarshal(keys("rotate"), &made); err != nil || len(made) != 1 {
		t.Fatalf("%v, %v", made, err)
	}
	for _, r := range replicas {
		until(t, "the new key is published", func() bool {
			_, set, _ := r.ask("GET", jwksPath, "", "")
			return strings.Contains(fmt.Sprint(set), made[0].ID)
		})
	}
	issue()
	believed()
	if got := signedBy(t, tokens[len(tokens)-1]); got != old {
		t.Errorf("%s signs, and verifiers may not know it", got)
	}

	// Its time comes; each gateway sees it when it sees it.
	begin := filepath.Join(filepath.Dir(made[0].File), time.Now().UTC().Format("20060102T150405Z")+"-begun.pem")
	if err := os.Rename(made[0].File, begin); err != nil {
		t.Fatal(err)
	}
	for i := range replicas {
		until(t, "the new key signs", func() bool {
			issue()
			return signedBy(t, tokens[len(tokens)-len(replicas)+i]) == made[0].ID
		})
	}
	believed()

	keys("withdraw", "--", old)
	for i, token := range tokens {
		for j, r := range replicas {
			want := 200
			if signedBy(t, token) == old {
				want = 401
			}
			until(t, fmt.Sprintf("token %d is answered %d at gateway %d", i, want, j), func() bool {
				status, _, _ := r.ask("GET", "/tasks", token, "")
				return status == want
			})
		}
	}
}

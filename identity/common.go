package identity

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"unicode"

	"github.com/ccojocar/zxcvbn-go/data"
)

// commonPasswords are those that an attacker tries first (NIST SP 800-63B-4
// §3.1.1.2): the list that zxcvbn estimates with, in lower case. It is read when
// somebody first chooses a password: a gateway may run for long before anybody does.
type commonPasswords func() (map[string]struct{}, error)

func newCommonPasswords() commonPasswords { return sync.OnceValues(readCommonPasswords) }

// readCommonPasswords reads the list from the module that ships it: its data
// alone, because its estimator parses five more lists when it is only imported.
func readCommonPasswords() (map[string]struct{}, error) {
	text, err := data.Asset("data/Passwords.json")
	if err != nil {
		return nil, fmt.Errorf("list of common passwords: %w", err)
	}
	var list struct{ List []string }
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("list of common passwords: %w", err)
	}
	set := make(map[string]struct{}, len(list.List))
	for _, p := range list.List {
		set[p] = struct{}{}
	}
	return set, nil
}

// maxDecoration is how many digits and signs around a common password do not
// make it another: "password123!", but not a word amid a long number.
const maxDecoration = 4

// has reports whether password is common, whatever its case, as itself or
// behind the habits that every guesser knows: a few digits and signs at its ends
// and digits for letters.
func (c commonPasswords) has(password string) (bool, error) {
	list, err := c()
	if err != nil {
		return false, err
	}
	password = strings.ToLower(password)
	core := strings.TrimFunc(password, func(r rune) bool { return unicode.IsDigit(r) || unicode.IsPunct(r) || unicode.IsSymbol(r) })
	if len(password)-len(core) > maxDecoration {
		core = password
	}
	plain := strings.NewReplacer("0", "o", "1", "l", "3", "e", "4", "a", "5", "s", "7", "t", "@", "a", "$", "s", "!", "i")
	for _, p := range []string{password, core, plain.Replace(password), plain.Replace(core)} {
		if _, ok := list[p]; ok {
			return true, nil
		}
	}
	return false, nil
}

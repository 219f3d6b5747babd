package policy

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// methodSet is a set of HTTP methods, one bit each. The last bit stands for all
// methods that the policy does not name, so that "*" is simply every bit.
type methodSet uint64

const (
	otherMethods methodSet = 1 << 63
	allMethods   methodSet = 1<<64 - 1
)

// maxMethods is the number of methods a policy can name beside the common ones.
const maxMethods = 63 - commonMethods

// commonMethods is the number of methods that commonMethod knows.
const commonMethods = 9

// commonMethod returns the bit of a method of RFC 9110 or 5789, or 0. It is a
// switch because that is what almost every decision begins with.
func commonMethod(method string) methodSet {
	switch method {
	case "GET":
		return 1 << 0
	case "HEAD":
		return 1 << 1
	case "POST":
		return 1 << 2
	case "PUT":
		return 1 << 3
	case "PATCH":
		return 1 << 4
	case "DELETE":
		return 1 << 5
	case "OPTIONS":
		return 1 << 6
	case "CONNECT":
		return 1 << 7
	case "TRACE":
		return 1 << 8
	}
	return 0
}

// methodTable gives every method that a policy names its bit.
type methodTable struct {
	names map[string]methodSet // the ones beside the common ones
}

// lookup returns the bit of a request's method. Methods are case-sensitive
// tokens (RFC 9110, section 9.1): "get" is another method than "GET".
func (t *methodTable) lookup(method string) methodSet {
	if bit := commonMethod(method); bit != 0 {
		return bit
	}
	if bit, ok := t.names[method]; ok {
		return bit
	}
	return otherMethods
}

// add returns the bit of a method that the file names; false if there are too many.
func (t *methodTable) add(method string) (methodSet, bool) {
	if bit := t.lookup(method); bit != otherMethods {
		return bit, true
	}
	if len(t.names) == maxMethods {
		return 0, false
	}
	if t.names == nil {
		t.names = make(map[string]methodSet)
	}
	bit := methodSet(1) << (commonMethods + len(t.names))
	t.names[strings.Clone(method)] = bit
	return bit, true
}

// registeredMethods are the methods of the IANA registry (RFC 9110, section
// 16.1.1), the common ones first, and PURGE, which caches made common without it.
func registeredMethods() []string {
	return strings.Fields(`GET HEAD POST PUT PATCH DELETE OPTIONS CONNECT TRACE
		ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK MERGE
		MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH
		PRI PROPFIND PROPPATCH PURGE QUERY REBIND REPORT SEARCH UNBIND UNCHECKOUT
		UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL`)
}

// parseMethods reads an action: "*", or methods separated by "|".
func (t *methodTable) parseMethods(text string) (methodSet, *fault) {
	switch text {
	case "*":
		return allMethods, nil
	case "":
		return 0, &fault{0, "action is missing", "write methods such as GET or GET|POST, or * for all"}
	}
	var set methodSet
	for at := 0; at <= len(text); {
		method, _, _ := strings.Cut(text[at:], "|")
		if f := checkMethod(method); f != nil {
			f.at += at
			return 0, f
		}
		bit, ok := t.add(method)
		if !ok {
			return 0, &fault{at, fmt.Sprintf("method %s is one too many", method), fmt.Sprintf("a policy can name %d uncommon methods", maxMethods)}
		}
		if set&bit != 0 {
			return 0, &fault{at, fmt.Sprintf("method %s appears twice", method), ""}
		}
		set |= bit
		at += len(method) + 1
	}
	return set, nil
}

// checkMethod refuses what is no method token, and what is a slip of the pen: a
// misspelt method in a deny rule would leave open what it was to close.
func checkMethod(method string) *fault {
	if commonMethod(method) != 0 {
		return nil
	}
	if method == "" {
		return &fault{0, "empty method", "write methods such as GET|POST without spaces"}
	}
	if method == "*" {
		return &fault{0, "* among methods", "* stands alone and already means every method"}
	}
	for i, c := range []byte(method) {
		if c >= 'A' && c <= 'Z' || i > 0 && (isDigit(c) || c == '-' || c == '_') {
			continue
		}
		if upper := strings.ToUpper(method); slices.Contains(registeredMethods(), upper) {
			return &fault{0, fmt.Sprintf("unknown method %q", method), fmt.Sprintf("did you mean %s?", upper)}
		}
		return &fault{i, fmt.Sprintf("%q is no HTTP method", method), "write methods such as GET|POST, or * for all"}
	}
	registered := registeredMethods()
	if slices.Contains(registered, method) {
		return nil
	}
	// One slip only: custom methods exist, and most words of five letters are
	// two changes away from some method of WebDAV.
	if meant := nearest(method, registered, 1); meant != "" {
		return &fault{0, fmt.Sprintf("unknown method %q", method), fmt.Sprintf("did you mean %s?", meant)}
	}
	return nil
}

// String spells the set the way a file would.
func (t *methodTable) String(set methodSet) string {
	if set == allMethods {
		return "*"
	}
	names := make([]string, 0, bits.OnesCount64(uint64(set)))
	for _, name := range registeredMethods()[:commonMethods] {
		if set&commonMethod(name) != 0 {
			names = append(names, name)
		}
	}
	var custom []string
	for name, bit := range t.names {
		if set&bit != 0 {
			custom = append(custom, name)
		}
	}
	slices.Sort(custom)
	return strings.Join(append(names, custom...), "|")
}

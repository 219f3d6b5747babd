package gateway

import (
	"bytes"
	"errors"
)

// checkForgery refuses what a browser may have been made to send by a page that
// is not ours. A request that its cookies authenticate must come from a page of
// an allowed origin if it changes something or becomes a WebSocket, which no
// same-origin policy protects; and to change something it must carry the token
// that only such a page can know.
func (r *request) checkForgery(st *State) error {
	if !r.header.cookieCaller {
		return nil
	}
	unsafe := !safeMethod(r.method)
	if !unsafe && !r.header.upgradeListed && r.header.upgrade == nil {
		return nil
	}
	if err := r.checkOrigin(st); err != nil {
		return err
	}
	if unsafe {
		return r.checkCSRF(st, r.principal.SessionID)
	}
	return nil
}

// safeMethod is RFC 9110 §9.2.1, of which TRACE is never forwarded.
func safeMethod(method string) bool {
	return method == "GET" || method == "HEAD" || method == "OPTIONS"
}

// checkOrigin wants a request to come from a page of an allowed origin, by the
// browser's word: Origin, or where there is none, Sec-Fetch-Site. Scripts can set
// neither.
func (r *request) checkOrigin(st *State) error {
	origin, err := r.only("Origin")
	if err != nil {
		return err
	}
	if origin != nil {
		for _, allowed := range st.cookies.Origins {
			if string(origin) == allowed {
				return nil
			}
		}
		return refuse(codeCSRFFailed, errors.New("not an allowed Origin"))
	}
	switch site, err := r.only("Sec-Fetch-Site"); {
	case err != nil:
		return err
	case string(site) == "same-origin", string(site) == "none":
		return nil
	}
	return refuse(codeCSRFFailed, errors.New("no Origin"))
}

// checkCSRF wants the session's CSRF token.
func (r *request) checkCSRF(st *State, sessionID string) error {
	token, err := r.only(fieldCSRFToken)
	if err != nil {
		return err
	}
	if !st.identity.CheckCSRF(sessionID, token) {
		return refuse(codeCSRFFailed, errors.New("X-CSRF-Token is missing or another session's"))
	}
	return nil
}

// only returns the value of a field that must not be repeated; nil if there is
// none.
func (r *request) only(name string) (value []byte, err error) {
	repeated := false
	eachField(r.head.fields, func(n, v []byte) {
		if bytes.EqualFold(n, []byte(name)) {
			repeated = repeated || value != nil
			value = append([]byte{}, v...)
		}
	})
	if repeated {
		return nil, refuse(codeCSRFFailed, errors.New("repeated "+name))
	}
	return value, nil
}

package gateway

import (
	"context"
	"net/http"
	"time"

	"portcullis/identity"
)

// The identity endpoints: decode, call, encode. What they mean is package
// identity's; who may call them is the policy's.

func accountEndpoints() []endpoint {
	return []endpoint{
		{"POST", "/register", true, register},
		{"POST", "/login", false, login},
		{"POST", "/refresh", false, refresh},
		{"POST", "/logout", true, logout},
		{"POST", "/forgot-password", false, forgotPassword},
		{"POST", "/reset-password", false, resetPassword},
		{"POST", "/verify-email", false, verifyEmail},
		{"GET", "/me", true, getMe},
		{"PATCH", "/me", true, patchMe},
		{"PUT", "/me/password", true, changePassword},
		{"GET", "/me/sessions", true, listSessions},
		{"DELETE", "/me/sessions/:id", true, deleteSession},
	}
}

// userBody is a user on the wire; never a hash.
type userBody struct {
	ID            string    `json:"id"`
	Username      string    `json:"username"`
	Email         string    `json:"email"`
	EmailVerified bool      `json:"email_verified"`
	Roles         []string  `json:"roles"`
	IsActive      bool      `json:"is_active"`
	Tenant        string    `json:"tenant"`
	CreatedAt     time.Time `json:"created_at"`
}

func newUserBody(u identity.User) userBody {
	return userBody{u.ID, u.Username, u.Email, u.EmailVerified, u.Roles, u.Active, u.Tenant, u.CreatedAt}
}

// tokenBody is RFC 6749 §5.1 with the lifetime of the refresh token.
type tokenBody struct {
	AccessToken      string `json:"access_token"`
	TokenType        string `json:"token_type"`
	ExpiresIn        int    `json:"expires_in"`
	RefreshToken     string `json:"refresh_token"`
	RefreshExpiresIn int    `json:"refresh_expires_in"`
}

func newTokenBody(g identity.Grant) tokenBody {
	return tokenBody{g.AccessToken, "Bearer", int(g.AccessExpiresIn.Seconds()), g.RefreshToken, int(g.RefreshExpiresIn.Seconds())}
}

type sessionBody struct {
	ID        string    `json:"id"`
	Current   bool      `json:"current"`
	UserAgent string    `json:"user_agent"`
	IP        string    `json:"ip"`
	CreatedAt time.Time `json:"created_at"`
	LastUsed  time.Time `json:"last_used"`
	ExpiresAt time.Time `json:"expires_at"`
}

// page is a part of a list; next_cursor is "" in the last one.
type page[T any] struct {
	Items      []T    `json:"items"`
	NextCursor string `json:"next_cursor"`
}

func register(ctx context.Context, c *call) error {
	var in struct {
		Username string `json:"username"`
		Email    string `json:"email"`
		Password string `json:"password"`
		Role     string `json:"role"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if err := required("username", in.Username, "email", in.Email, "password", in.Password); err != nil {
		return err
	}
	u, err := c.st.identity.Register(ctx, identity.Registration(in), c.principal, c.client())
	if err != nil {
		return err
	}
	return c.reply(http.StatusCreated, newUserBody(u))
}

// login accepts JSON, and the form of OAuth 2's password grant so that the
// clients and tools that speak it work.
func login(ctx context.Context, c *call) error {
	var in struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if c.mediaType() == "application/x-www-form-urlencoded" {
		form, err := c.form()
		if err != nil {
			return err
		}
		if g := form.Get("grant_type"); g != "" && g != "password" {
			return &refusal{code: codeValidationFailed, fields: []fieldProblem{{"grant_type", `must be "password"`}}}
		}
		in.Username, in.Password = form.Get("username"), form.Get("password")
	} else if err := c.decode(&in); err != nil {
		return err
	}
	if err := required("username", in.Username, "password", in.Password); err != nil {
		return err
	}
	cookies, err := c.cookieMode()
	if err == nil && cookies {
		err = c.checkOrigin(c.st) // or another site signs a browser in as somebody else
	}
	if err != nil {
		return err
	}
	grant, err := c.st.identity.Login(ctx, in.Username, in.Password, c.client())
	if err != nil {
		return err
	}
	return c.replyTokens(grant, cookies)
}

func refresh(ctx context.Context, c *call) error {
	cookies, err := c.cookieMode()
	if err != nil {
		return err
	}
	var token string
	if cookies {
		token, err = c.refreshCookie()
	} else {
		token, err = c.refreshToken()
	}
	if err != nil {
		return c.refreshRefusal(err, cookies)
	}
	grant, err := c.st.identity.Refresh(ctx, token, c.client())
	if err != nil {
		return c.refreshRefusal(err, cookies)
	}
	return c.replyTokens(grant, cookies)
}

// refreshToken reads the refresh token of the body.
func (c *call) refreshToken() (string, error) {
	var in struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := c.decode(&in); err != nil {
		return "", err
	}
	return in.RefreshToken, required("refresh_token", in.RefreshToken)
}

// refreshRefusal tells a bad refresh token from a bad access token, which have
// the same cause and another way out. Cookies that are worth nothing are taken away.
func (c *call) refreshRefusal(err error, cookies bool) error {
	r := asRefusal(err)
	if r.code == codeInvalidToken {
		r.code = codeInvalidRefresh
	}
	if cookies && r.code == codeInvalidRefresh {
		r.setCookie = c.st.cookies.cleared()
	}
	return r
}

func logout(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	scope := identity.LogoutScope(c.ctx.QueryArgs().Peek("scope"))
	if scope == "" {
		scope = identity.LogoutLocal
	}
	if err := c.st.identity.Logout(ctx, p, scope, c.client()); err != nil {
		return err
	}
	if scope != identity.LogoutOthers {
		c.clearCookies()
	}
	return c.done()
}

func forgotPassword(ctx context.Context, c *call) error {
	var in struct {
		Email string `json:"email"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if err := c.st.identity.Forgot(ctx, in.Email, c.client()); err != nil {
		return err
	}
	return c.reply(http.StatusAccepted, map[string]string{"detail": "If the address belongs to an account, a mail is on its way."})
}

func resetPassword(ctx context.Context, c *call) error {
	var in struct {
		Token       string `json:"token"`
		NewPassword string `json:"new_password"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if err := required("token", in.Token, "new_password", in.NewPassword); err != nil {
		return err
	}
	if err := c.st.identity.Reset(ctx, in.Token, in.NewPassword, c.client()); err != nil {
		return err
	}
	return c.done()
}

func verifyEmail(ctx context.Context, c *call) error {
	var in struct {
		Token string `json:"token"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if err := required("token", in.Token); err != nil {
		return err
	}
	if err := c.st.identity.VerifyEmail(ctx, in.Token, c.client()); err != nil {
		return err
	}
	return c.done()
}

func getMe(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	u, err := c.st.identity.Me(ctx, p)
	if err != nil {
		return err
	}
	if c.header.cookieCaller { // a page that was loaded anew has forgotten it
		c.answer.Header.Set(fieldCSRFToken, c.st.identity.CSRFToken(p.SessionID))
	}
	return c.reply(http.StatusOK, newUserBody(u))
}

func patchMe(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	var in struct {
		Username        *string `json:"username"`
		Email           *string `json:"email"`
		CurrentPassword string  `json:"current_password"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	u, err := c.st.identity.UpdateMe(ctx, p, identity.Profile(in), c.client())
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, newUserBody(u))
}

func changePassword(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	var in struct {
		CurrentPassword string `json:"current_password"`
		NewPassword     string `json:"new_password"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if err := required("current_password", in.CurrentPassword, "new_password", in.NewPassword); err != nil {
		return err
	}
	if err := c.st.identity.ChangePassword(ctx, p, in.CurrentPassword, in.NewPassword, c.client()); err != nil {
		return err
	}
	return c.done()
}

func listSessions(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	sessions, err := c.st.identity.Sessions(ctx, p)
	if err != nil {
		return err
	}
	out := page[sessionBody]{Items: make([]sessionBody, 0, len(sessions))}
	for _, s := range sessions {
		out.Items = append(out.Items, sessionBody{s.ID, s.ID == p.SessionID, s.UserAgent, s.IP, s.CreatedAt, s.RotatedAt, s.ExpiresAt})
	}
	return c.reply(http.StatusOK, out)
}

func deleteSession(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	if err := c.st.identity.EndSession(ctx, p, c.params[0], c.client()); err != nil {
		return err
	}
	if c.params[0] == p.SessionID {
		c.clearCookies()
	}
	return c.done()
}

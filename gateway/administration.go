package gateway

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"

	"portcullis/identity"
)

// The administrators' endpoints are not special: the policy decides who may call
// them, and package identity whom they may be about.

func adminEndpoints() []endpoint {
	return []endpoint{
		{"GET", "/users", true, listUsers},
		{"GET", "/users/:id", true, getUser},
		{"PATCH", "/users/:id", true, patchUser},
		{"DELETE", "/users/:id", true, deleteUser},
		{"POST", "/users/:id/logout", true, logoutUser},
		{"GET", "/audit", true, listAudit},
	}
}

func listUsers(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	limit, err := c.limit()
	if err != nil {
		return err
	}
	cursor, err := c.cursor()
	if err != nil {
		return err
	}
	users, next, err := c.st.identity.Users(ctx, p, string(c.ctx.QueryArgs().Peek("q")), cursor, limit)
	if err != nil {
		return err
	}
	out := page[userBody]{Items: make([]userBody, 0, len(users)), NextCursor: encodeCursor(next)}
	for _, u := range users {
		out.Items = append(out.Items, newUserBody(u))
	}
	return c.reply(http.StatusOK, out)
}

func getUser(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	u, err := c.st.identity.UserByID(ctx, p, c.params[0])
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, newUserBody(u))
}

func patchUser(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	var in struct {
		Roles    *[]string `json:"roles"`
		IsActive *bool     `json:"is_active"`
		Email    *string   `json:"email"`
		Tenant   *string   `json:"tenant"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	u, err := c.st.identity.UpdateUser(ctx, p, c.params[0], identity.Change{Roles: in.Roles, Active: in.IsActive, Email: in.Email, Tenant: in.Tenant}, c.client())
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, newUserBody(u))
}

func deleteUser(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	if err := c.st.identity.DeleteUser(ctx, p, c.params[0], c.client()); err != nil {
		return err
	}
	return c.done()
}

func logoutUser(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	if err := c.st.identity.LogoutUser(ctx, p, c.params[0], c.client()); err != nil {
		return err
	}
	return c.done()
}

type auditBody struct {
	ID        string            `json:"id"`
	At        time.Time         `json:"at"`
	Event     string            `json:"event"`
	Tenant    string            `json:"tenant"`
	UserID    string            `json:"user_id"`
	ActorID   string            `json:"actor_id"`
	SessionID string            `json:"session_id"`
	IP        string            `json:"ip"`
	RequestID string            `json:"request_id"`
	Details   map[string]string `json:"details"`
}

func listAudit(ctx context.Context, c *call) error {
	p, err := c.caller()
	if err != nil {
		return err
	}
	limit, err := c.limit()
	if err != nil {
		return err
	}
	cursor, err := c.cursor()
	if err != nil {
		return err
	}
	args := c.ctx.QueryArgs()
	records, err := c.st.identity.Audit(ctx, p, identity.AuditQuery{
		UserID: string(args.Peek("user_id")), Event: string(args.Peek("event")), Before: cursor, Limit: limit,
	})
	if err != nil {
		return err
	}
	out := page[auditBody]{Items: make([]auditBody, 0, len(records))}
	for _, r := range records {
		out.Items = append(out.Items, auditBody{r.ID, r.At, r.Event, r.Tenant, r.UserID, r.ActorID, r.SessionID, r.IP, r.RequestID, r.Details})
	}
	if len(records) == limit {
		out.NextCursor = encodeCursor(records[limit-1].ID)
	}
	return c.reply(http.StatusOK, out)
}

// Cursors are opaque so that nobody builds on what they hold.

func encodeCursor(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func (c *call) cursor() (string, error) {
	key, err := base64.RawURLEncoding.DecodeString(string(c.ctx.QueryArgs().Peek("cursor")))
	if err != nil || len(key) > 512 {
		return "", &refusal{code: codeValidationFailed, fields: []fieldProblem{{"cursor", "must be a next_cursor of an earlier page"}}}
	}
	return string(key), nil
}

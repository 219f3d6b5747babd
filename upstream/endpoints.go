package upstream

import (
	"context"
	"net/http"
)

// adminRole opens the tasks of others. The gateway's policy asks for it too;
// this service does not rely on how that file is written.
const adminRole = "admin"

const contentJSON = "application/json"

// page is a listing as shown to clients.
type page struct {
	Items      []Task `json:"items"`
	NextCursor string `json:"next_cursor"` // "" on the last page
}

func (a *api) create(w http.ResponseWriter, c call) error {
	body, err := readBody(w, c.Request)
	if err != nil {
		return err
	}
	draft, err := decodeDraft(body)
	if err != nil {
		return err
	}
	t, err := newTask(draft, c.caller, a.now())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), storeTimeout)
	defer cancel()
	if err := a.store.Create(ctx, t); err != nil {
		return err
	}
	w.Header().Set("Location", "/tasks/"+t.ID)
	writeBody(w, http.StatusCreated, contentJSON, t)
	return nil
}

func (a *api) get(w http.ResponseWriter, c call) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), storeTimeout)
	defer cancel()
	t, err := a.store.Get(ctx, ref)
	if err != nil {
		return err
	}
	writeBody(w, http.StatusOK, contentJSON, t)
	return nil
}

func (a *api) update(w http.ResponseWriter, c call) error {
	body, err := readBody(w, c.Request)
	if err != nil {
		return err
	}
	change, err := decodeChange(body)
	if err != nil {
		return err
	}
	return a.change(w, c, change)
}

func (a *api) complete(w http.ResponseWriter, c call) error {
	done := true
	return a.change(w, c, Change{Done: &done})
}

func (a *api) change(w http.ResponseWriter, c call, change Change) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), storeTimeout)
	defer cancel()
	t, err := a.store.Update(ctx, ref, func(t *Task) { change.apply(t, a.now()) })
	if err != nil {
		return err
	}
	writeBody(w, http.StatusOK, contentJSON, t)
	return nil
}

func (a *api) remove(w http.ResponseWriter, c call) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), storeTimeout)
	defer cancel()
	if err := a.store.Delete(ctx, ref); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) list(w http.ResponseWriter, c call) error {
	l, err := decodeListing(c.URL.RawQuery, "cursor", "limit", "done")
	if err != nil {
		return err
	}
	return writePage(w, c, l.page, func(ctx context.Context, p Page) ([]Task, error) {
		return a.store.ListByOwner(ctx, c.caller.Tenant, c.caller.Subject, l.done, p)
	})
}

func (a *api) listAll(w http.ResponseWriter, c call) error {
	if !c.caller.HasRole(adminRole) {
		return &failure{code: codeRoleRequired}
	}
	l, err := decodeListing(c.URL.RawQuery, "owner", "cursor", "limit")
	if err != nil {
		return err
	}
	return writePage(w, c, l.page, func(ctx context.Context, p Page) ([]Task, error) {
		if l.owner != "" {
			return a.store.ListByOwner(ctx, c.caller.Tenant, l.owner, nil, p)
		}
		return a.store.ListByTenant(ctx, c.caller.Tenant, p)
	})
}

func writePage(w http.ResponseWriter, c call, p Page, list func(context.Context, Page) ([]Task, error)) error {
	ctx, cancel := context.WithTimeout(c.Context(), storeTimeout)
	defer cancel()
	ts, err := list(ctx, Page{Before: p.Before, Limit: p.Limit + 1})
	if err != nil {
		return err
	}
	answer := page{Items: ts}
	if len(ts) > p.Limit { // the one too many says that there is a next page
		answer.Items = ts[:p.Limit]
		answer.NextCursor = encodeCursor(ts[p.Limit-1].ID)
	}
	if answer.Items == nil {
		answer.Items = []Task{} // [] on the wire, not null
	}
	writeBody(w, http.StatusOK, contentJSON, answer)
	return nil
}

// ref names the task in the path as one of the caller's. What is no ID names
// none, which is no other answer than for an ID that is not taken.
func (c call) ref() (Ref, error) {
	if !isTaskID(c.taskID) {
		return Ref{}, ErrNotFound
	}
	return Ref{Tenant: c.caller.Tenant, Owner: c.caller.Subject, ID: c.taskID}, nil
}

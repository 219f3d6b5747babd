package upstream

import (
	"context"
	"errors"
)

// Misses of a Store, matched with errors.Is.
var (
	// ErrNotFound means that there is no such task, or none that this owner may know of.
	ErrNotFound = errors.New("no such task")
	// ErrExists means that a task with that ID is stored already.
	ErrExists = errors.New("task exists")
	// ErrUnavailable means that the store could not be asked; later it may answer.
	ErrUnavailable = errors.New("task store unavailable")
)

// Ref names a task together with whom it must belong to. A store finds a task
// by all three or not at all, so that a forgotten check cannot open a foreign task.
type Ref struct {
	Tenant string
	Owner  string
	ID     string
}

// Page selects a stretch of a listing.
type Page struct {
	Before string // exclusive: the ID of the last task of the page before; "" begins
	Limit  int    // at most so many tasks; must be positive
}

// Store keeps tasks. Each method is atomic by itself, is safe for concurrent
// use, and costs what it returns, not what is stored. Listings are newest first
// (descending by ID), so that a task created while somebody turns pages neither
// moves nor repeats the others. Failures to reach the backend in the context's
// time match ErrUnavailable.
type Store interface {
	// Create stores a new task; ErrExists, and nothing changes, if its ID is taken.
	Create(ctx context.Context, t Task) error
	// Get returns the task; ErrNotFound.
	Get(ctx context.Context, ref Ref) (Task, error)
	// Update lets modify change the task and stores the result; ErrNotFound. Of
	// parallel updates each sees the result of the one before: modify may
	// therefore be called more than once, and must do nothing but change the
	// task. It must not change ID, Owner, Tenant or CreatedAt.
	Update(ctx context.Context, ref Ref, modify func(*Task)) (Task, error)
	// Delete removes the task; ErrNotFound.
	Delete(ctx context.Context, ref Ref) error
	// ListByOwner lists one owner's tasks in one tenant; done, if not nil,
	// selects those that are done, or those that are not.
	ListByOwner(ctx context.Context, tenant, owner string, done *bool, p Page) ([]Task, error)
	// ListByTenant lists the tasks of every owner in one tenant.
	ListByTenant(ctx context.Context, tenant string, p Page) ([]Task, error)
	// Close releases the backend. Methods called afterwards fail with ErrUnavailable.
	Close() error
}

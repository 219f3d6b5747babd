package upstream

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The buckets of a bolt file. Tasks are under their ID; the other three are
// indexes, one for each listing, of keys without values. The key of an index is
// what it selects by, followed by the ID, which is what it sorts by.
const (
	bucketTasks    = "tasks"
	bucketByOwner  = "by_owner"  // tenant, owner
	bucketByState  = "by_state"  // tenant, owner, done
	bucketByTenant = "by_tenant" // tenant
)

// boltLockWait bounds the wait for a file that another process has open.
const boltLockWait = time.Second

// BoltStore is a Store in one file, for one process.
type BoltStore struct {
	db *bbolt.DB
	// writer is held by the one who writes. Bolt has a lock of its own, which
	// is not given up waiting for when the context ends.
	writer chan struct{}
}

var _ Store = (*BoltStore)(nil)

// OpenBolt opens the file, and makes it and its directory, readable by this
// user alone, where they do not exist. A file that is open elsewhere is an error.
func OpenBolt(path string) (*BoltStore, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of the task store: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: boltLockWait})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("opening the task store %s: another process has it open", path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the task store %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{bucketTasks, bucketByOwner, bucketByState, bucketByTenant} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("preparing the task store %s: %w", path, err), db.Close())
	}
	return &BoltStore{db: db, writer: make(chan struct{}, 1)}, nil
}

// Close implements Store. It waits for transactions under way.
func (s *BoltStore) Close() error { return s.db.Close() }

// Create implements Store.
func (s *BoltStore) Create(ctx context.Context, t Task) error {
	return s.write(ctx, "creating a task", func(tx boltTx) error {
		if tx.Bucket([]byte(bucketTasks)).Get([]byte(t.ID)) != nil {
			return ErrExists
		}
		return tx.put(t)
	})
}

// Get implements Store.
func (s *BoltStore) Get(ctx context.Context, ref Ref) (t Task, err error) {
	err = s.read(ctx, "reading a task", func(tx boltTx) error {
		t, err = tx.get(ref)
		return err
	})
	return t, err
}

// Update implements Store.
func (s *BoltStore) Update(ctx context.Context, ref Ref, modify func(*Task)) (t Task, err error) {
	err = s.write(ctx, "updating a task", func(tx boltTx) error {
		if t, err = tx.get(ref); err != nil {
			return err
		}
		before := t
		if modify(&t); t == before {
			return nil
		}
		if err := tx.remove(before); err != nil {
			return err
		}
		return tx.put(t)
	})
	return t, err
}

// Delete implements Store.
func (s *BoltStore) Delete(ctx context.Context, ref Ref) error {
	return s.write(ctx, "deleting a task", func(tx boltTx) error {
		t, err := tx.get(ref)
		if err != nil {
			return err
		}
		return tx.remove(t)
	})
}

// ListByOwner implements Store.
func (s *BoltStore) ListByOwner(ctx context.Context, tenant, owner string, done *bool, p Page) ([]Task, error) {
	if done != nil {
		return s.list(ctx, bucketByState, stateKey(tenant, owner, *done), p)
	}
	return s.list(ctx, bucketByOwner, ownerKey(tenant, owner), p)
}

// ListByTenant implements Store.
func (s *BoltStore) ListByTenant(ctx context.Context, tenant string, p Page) ([]Task, error) {
	return s.list(ctx, bucketByTenant, tenantKey(tenant), p)
}

func (s *BoltStore) list(ctx context.Context, bucket string, selector []byte, p Page) (ts []Task, err error) {
	err = s.read(ctx, "listing tasks", func(tx boltTx) error {
		end := append(bytes.Clone(selector), p.Before...)
		if p.Before == "" {
			end = append(end, 0xff) // after every ID
		}
		c := tx.Bucket([]byte(bucket)).Cursor()
		k, _ := c.Seek(end)
		if k == nil {
			k, _ = c.Last()
		} else {
			k, _ = c.Prev()
		}
		for ; bytes.HasPrefix(k, selector) && len(ts) < p.Limit; k, _ = c.Prev() {
			t, err := tx.task(k[len(selector):])
			if errors.Is(err, ErrNotFound) {
				return fmt.Errorf("%w: it is in an index only", errDamaged)
			}
			if err != nil {
				return err
			}
			ts = append(ts, t)
		}
		return nil
	})
	return ts, err
}

func (s *BoltStore) read(ctx context.Context, doing string, f func(boltTx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
	}
	return boltError(doing, s.db.View(func(tx *bbolt.Tx) error { return f(boltTx{tx}) }))
}

func (s *BoltStore) write(ctx context.Context, doing string, f func(boltTx) error) error {
	if err := ctx.Err(); err != nil { // select would choose at random
		return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
	}
	select {
	case s.writer <- struct{}{}:
		defer func() { <-s.writer }()
	case <-ctx.Done():
		return fmt.Errorf("%s: waiting for other writers: %w: %w", doing, ErrUnavailable, ctx.Err())
	}
	return boltError(doing, s.db.Update(func(tx *bbolt.Tx) error { return f(boltTx{tx}) }))
}

// boltError says of a failure that is not about the task itself that the store
// is unavailable: the file is closed, the disk is full or broken.
func boltError(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrExists), errors.Is(err, errDamaged):
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
}

// errDamaged means that what the store returned is not what was stored.
var errDamaged = errors.New("stored task is damaged")

// boltTx is a transaction that keeps the indexes true.
type boltTx struct{ *bbolt.Tx }

// boltTask is a Task as stored: what clients are shown may change its names,
// what is in the file may not.
type boltTask struct {
	ID          string     `json:"id"`
	Owner       string     `json:"owner"`
	Tenant      string     `json:"tenant"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Done        bool       `json:"done"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
	CompletedAt *time.Time `json:"completed_at"`
}

func (tx boltTx) get(ref Ref) (Task, error) {
	t, err := tx.task([]byte(ref.ID))
	if err != nil {
		return Task{}, err
	}
	if t.Tenant != ref.Tenant || t.Owner != ref.Owner {
		return Task{}, ErrNotFound
	}
	return t, nil
}

func (tx boltTx) task(id []byte) (Task, error) {
	stored := tx.Bucket([]byte(bucketTasks)).Get(id)
	if stored == nil {
		return Task{}, ErrNotFound
	}
	var t boltTask
	if err := json.Unmarshal(stored, &t); err != nil {
		return Task{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return Task(t), nil
}

func (tx boltTx) put(t Task) error {
	stored, err := json.Marshal(boltTask(t))
	if err != nil {
		return fmt.Errorf("encoding a task: %w", err)
	}
	if err := tx.Bucket([]byte(bucketTasks)).Put([]byte(t.ID), stored); err != nil {
		return err
	}
	for bucket, selector := range indexKeys(t) {
		if err := tx.Bucket([]byte(bucket)).Put(append(selector, t.ID...), nil); err != nil {
			return err
		}
	}
	return nil
}

func (tx boltTx) remove(t Task) error {
	if err := tx.Bucket([]byte(bucketTasks)).Delete([]byte(t.ID)); err != nil {
		return err
	}
	for bucket, selector := range indexKeys(t) {
		if err := tx.Bucket([]byte(bucket)).Delete(append(selector, t.ID...)); err != nil {
			return err
		}
	}
	return nil
}

func indexKeys(t Task) map[string][]byte {
	return map[string][]byte{
		bucketByOwner:  ownerKey(t.Tenant, t.Owner),
		bucketByState:  stateKey(t.Tenant, t.Owner, t.Done),
		bucketByTenant: tenantKey(t.Tenant),
	}
}

// Every part of a key is preceded by its length: no tenant or owner can be
// named so that its key begins like that of another.

func tenantKey(tenant string) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(tenant))), tenant...)
}

func ownerKey(tenant, owner string) []byte {
	key := binary.AppendUvarint(tenantKey(tenant), uint64(len(owner)))
	return append(key, owner...)
}

func stateKey(tenant, owner string, done bool) []byte {
	key := ownerKey(tenant, owner)
	if done {
		return append(key, 1)
	}
	return append(key, 0)
}

// Package boltstore keeps identities in one file, so that the gateway runs
// with nothing else installed.
//
// It implements [identity.Store] on bbolt. The file belongs to one process at
// a time; several replicas need package mongostore. Space freed in the file is
// used again but not given back to the file system.
package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"portcullis/identity"
)

// ErrInUse means that another process, or another Store of this one, has the
// file open.
var ErrInUse = errors.New("the store is in use by another process")

const (
	// lockWait bounds how long Open waits for another process to let go of the
	// file: long enough for a predecessor that is just ending.
	lockWait = time.Second
	// gatherFor is how long a write that is not alone waits for others to share
	// its fsync.
	gatherFor = 2 * time.Millisecond
	// format is raised when older versions of this package would misread the file.
	format = "1"
)

var (
	metaBucket = []byte("meta")
	formatKey  = []byte("format")
)

// Store is an [identity.Store] in a file. Use Open to make one.
type Store struct {
	db      *bbolt.DB
	writers atomic.Int32 // calls of write under way
}

var _ identity.Store = (*Store)(nil)

// Open opens the store in the file at path, creating it (mode 0600) and the
// directories above it (mode 0700) where they are missing. When the file is
// still in use after about a second it returns an error that matches ErrInUse.
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("boltstore: create the directory of %s: %w", path, err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockWait,
		// The list of free pages can become long, after a sweep for one, and each
		// commit would write all of it. It is rebuilt at the next Open instead.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		NoStatistics:   true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("boltstore: open %s: %w", path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("boltstore: open %s: %w", path, err)
	}
	db.MaxBatchDelay = gatherFor
	if err := db.Update(prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("boltstore: prepare %s: %w", path, err), db.Close())
	}
	return &Store{db: db}, nil
}

// prepare creates the buckets of a new file and refuses one of another format.
func prepare(tx *bbolt.Tx) error {
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	if f := meta.Get(formatKey); f != nil && string(f) != format {
		return fmt.Errorf("the file has format %q, this version reads format %q", f, format)
	}
	if err := meta.Put(formatKey, []byte(format)); err != nil {
		return err
	}
	for _, name := range bucketNames() {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	return nil
}

// Ping fails when the store is closed.
func (s *Store) Ping(ctx context.Context) error {
	return s.read(ctx, "ping", func(*bbolt.Tx) error { return nil })
}

// Close waits for calls under way and releases the file.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("boltstore: close: %w", err)
	}
	return nil
}

// read runs fn on a snapshot of the store.
func (s *Store) read(ctx context.Context, doing string, fn func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return unavailable(doing, err)
	}
	var said error
	err := s.db.View(func(tx *bbolt.Tx) error {
		said = fn(tx)
		return said
	})
	return outcome(doing, said, err)
}

// write runs fn and returns when what it wrote is on disk.
//
// Writes that come in parallel share a transaction and its fsync, so fn may run
// more than once: it has to assign its results anew each time, and it must not
// have written anything when it returns a miss.
func (s *Store) write(ctx context.Context, doing string, fn func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return unavailable(doing, err)
	}
	defer s.writers.Add(-1)
	var said error
	if s.writers.Add(1) == 1 {
		err := s.db.Update(func(tx *bbolt.Tx) error {
			said = fn(tx)
			return said
		})
		return outcome(doing, said, err)
	}
	err := s.db.Batch(func(tx *bbolt.Tx) error {
		said = fn(tx)
		if isMiss(said) {
			// An error would undo and repeat everybody's part of the transaction;
			// a miss has nothing to undo.
			return nil
		}
		return said
	})
	return outcome(doing, said, err)
}

// outcome makes one error of what the function of a transaction said and what
// became of the transaction. A miss counts only if the transaction was
// committed: it may rest on another call's part of it.
func outcome(doing string, said, tx error) error {
	switch {
	case said == nil && tx == nil:
		return nil
	case said == nil, isMiss(said) && tx != nil && !isMiss(tx):
		return unavailable(doing, tx)
	default:
		return fmt.Errorf("boltstore: %s: %w", doing, said)
	}
}

func unavailable(doing string, err error) error {
	return fmt.Errorf("boltstore: %s: %w: %w", doing, identity.ErrUnavailable, err)
}

// isMiss tells the answers that are about the data from failures.
func isMiss(err error) bool {
	for _, miss := range []error{
		identity.ErrNotFound, identity.ErrConflict, identity.ErrLastAdministrator,
		identity.ErrUsernameTaken, identity.ErrEmailTaken,
	} {
		if errors.Is(err, miss) {
			return true
		}
	}
	return false
}

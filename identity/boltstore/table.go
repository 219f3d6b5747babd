package boltstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"portcullis/identity"
)

// table is one kind of record: a bucket that holds it as JSON under its
// primary key, and a bucket for each index. All index entries are derived from
// the record, so that put and remove cannot disagree about them.
type table[R any] struct {
	name    string
	key     func(*R) []byte // the primary key
	indexes []index[R]
	expires func(*R) time.Time // nil: never
}

// index is a bucket of primary keys, under keys that key derives from the
// record. Either the keys are unique among records, which is checked, or they
// end in the primary key.
type index[R any] struct {
	name  string
	key   func(*R) []byte // nil result: the record is not in the index
	taken error           // what to answer when the key is another record's; nil if that cannot be
}

// all returns the indexes, with the one by expiry that Sweep walks.
func (t *table[R]) all() []index[R] {
	if t.expires == nil {
		return t.indexes
	}
	byExpiry := func(r *R) []byte { return append(timeKey(t.expires(r)), t.key(r)...) }
	return append(t.indexes[:len(t.indexes):len(t.indexes)], index[R]{name: "expiry", key: byExpiry})
}

func (t *table[R]) bucket(tx *bbolt.Tx) *bbolt.Bucket { return t.index(tx, primary) }

func (t *table[R]) index(tx *bbolt.Tx, name string) *bbolt.Bucket {
	return tx.Bucket(t.bucketName(name))
}

func (t *table[R]) bucketName(index string) []byte {
	if index == primary {
		return []byte(t.name)
	}
	return []byte(t.name + "." + index)
}

// names returns the names of the table's buckets.
func (t *table[R]) names() [][]byte {
	names := [][]byte{t.bucketName(primary)}
	for _, ix := range t.all() {
		names = append(names, t.bucketName(ix.name))
	}
	return names
}

// get returns the record with that primary key, or ErrNotFound.
func (t *table[R]) get(tx *bbolt.Tx, key []byte) (R, error) {
	var r R
	raw := t.bucket(tx).Get(key)
	if raw == nil {
		return r, identity.ErrNotFound
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("decode %s record: %w", t.name, err)
	}
	return r, nil
}

// find is get for records that need not exist: it returns nil then.
func (t *table[R]) find(tx *bbolt.Tx, key []byte) (*R, error) {
	r, err := t.get(tx, key)
	if errors.Is(err, identity.ErrNotFound) {
		return nil, nil
	}
	return &r, err
}

// lookup returns the record that a unique index has under key, or ErrNotFound.
func (t *table[R]) lookup(tx *bbolt.Tx, index, key string) (R, error) {
	owner := t.index(tx, index).Get([]byte(key))
	if owner == nil {
		var none R
		return none, identity.ErrNotFound
	}
	return t.get(tx, owner)
}

// insert stores a new record; ErrConflict if its primary key exists.
func (t *table[R]) insert(tx *bbolt.Tx, r R) error {
	if t.bucket(tx).Get(t.key(&r)) != nil {
		return identity.ErrConflict
	}
	return t.put(tx, nil, r)
}

// put stores r in place of old (nil if there is none) and moves the index
// entries that differ. It writes nothing when a unique key is taken.
func (t *table[R]) put(tx *bbolt.Tx, old *R, r R) error {
	owner := t.key(&r)
	for _, ix := range t.all() {
		if ix.taken == nil {
			continue
		}
		if other := t.index(tx, ix.name).Get(ix.key(&r)); other != nil && !bytes.Equal(other, owner) {
			return ix.taken
		}
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode %s record: %w", t.name, err)
	}
	for _, ix := range t.all() {
		key := ix.key(&r)
		if old != nil {
			was := ix.key(old)
			if bytes.Equal(was, key) {
				continue
			}
			if was != nil {
				if err := t.index(tx, ix.name).Delete(was); err != nil {
					return err
				}
			}
		}
		if key != nil {
			if err := t.index(tx, ix.name).Put(key, owner); err != nil {
				return fmt.Errorf("index %s of %s: %w", ix.name, t.name, err)
			}
		}
	}
	return t.bucket(tx).Put(owner, raw)
}

// remove deletes a record that was read in the same transaction.
func (t *table[R]) remove(tx *bbolt.Tx, r *R) error {
	for _, ix := range t.all() {
		if key := ix.key(r); key != nil {
			if err := t.index(tx, ix.name).Delete(key); err != nil {
				return err
			}
		}
	}
	return t.bucket(tx).Delete(t.key(r))
}

// primary stands for the name of an index where the table's own bucket is meant.
const primary = ""

// under returns the records that index has under keys beginning with prefix,
// in the order of the keys.
func (t *table[R]) under(tx *bbolt.Tx, index string, prefix []byte) ([]R, error) {
	var rs []R
	c := t.index(tx, index).Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if index == primary {
			v = k
		}
		r, err := t.get(tx, v)
		if err != nil {
			return nil, err
		}
		rs = append(rs, r)
	}
	return rs, nil
}

// sweep removes up to limit records that have expired by now.
func (t *table[R]) sweep(tx *bbolt.Tx, now time.Time, limit int) (int, error) {
	end := timeKey(now)
	var due []R // removed afterwards: a cursor does not survive changes to its bucket
	c := t.index(tx, "expiry").Cursor()
	for k, v := c.First(); k != nil && bytes.Compare(k[:len(end)], end) <= 0 && len(due) < limit; k, v = c.Next() {
		r, err := t.get(tx, v)
		if err != nil {
			return 0, err
		}
		due = append(due, r)
	}
	for i := range due {
		if err := t.remove(tx, &due[i]); err != nil {
			return 0, err
		}
	}
	return len(due), nil
}

// group encodes parts so that no two lists of parts have keys where one is a
// prefix of the other, whatever bytes they hold.
func group(parts ...string) []byte {
	var key []byte
	for _, p := range parts {
		key = binary.BigEndian.AppendUint32(key, uint32(len(p)))
		key = append(key, p...)
	}
	return key
}

// timeKey encodes t in milliseconds so that keys sort by time.
func timeKey(t time.Time) []byte {
	const sign = 1 << 63 // times before 1970 sort first
	return binary.BigEndian.AppendUint64(nil, uint64(t.UnixMilli())^sign)
}

// stored returns t as the store keeps times: in UTC, cut to milliseconds.
func stored(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// expired says whether something that ends at end is over by now.
func expired(end, now time.Time) bool { return !stored(end).After(stored(now)) }

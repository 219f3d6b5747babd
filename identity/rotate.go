package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// KeyState is where a key is in its life.
type KeyState string

// The states of a key, in the order of its life.
const (
	KeyPublished KeyState = "published" // verifiers may learn it; it does not sign yet
	KeySigns     KeyState = "signs"
	KeyVerifies  KeyState = "verifies" // what it has signed may still be valid
	KeyRetired   KeyState = "retired"  // nothing that it has signed is valid any more; it is not believed
)

// Lifetimes are how long what keys sign is valid: they say until when a key is needed.
type Lifetimes struct {
	Access  time.Duration // of access tokens
	Refresh time.Duration // of refresh tokens
}

// signed is the lifetime of what asymmetric keys sign.
func (l Lifetimes) signed() time.Duration { return max(l.Access, AssertionTTL) }

// KeyInfo describes a key, or a secret, without giving it away.
type KeyInfo struct {
	ID        string    `json:"id"`
	Algorithm Algorithm `json:"algorithm"` // HS256: a secret, from which the key of refresh tokens is derived, too
	File      string    `json:"file"`
	State     KeyState  `json:"state"`
	// SignsFrom is zero for what has always signed, VerifiesUntil for what has no successor.
	SignsFrom     time.Time `json:"signs_from,omitzero"`
	VerifiesUntil time.Time `json:"verifies_until,omitzero"`
}

// Keys lists keys and secrets, those that sign first.
func (k *Keyring) Keys(now time.Time, valid Lifetimes) []KeyInfo {
	var infos []KeyInfo
	add := func(id string, alg Algorithm, t term, signs bool, lifetime time.Duration) {
		info := KeyInfo{ID: id, Algorithm: alg, File: t.file, SignsFrom: t.from, State: KeyVerifies}
		if !t.succeeded.IsZero() {
			info.VerifiesUntil = t.until(lifetime)
		}
		switch {
		case signs:
			info.State = KeySigns
		case now.Before(t.from):
			info.State = KeyPublished
		case t.retired(now, lifetime):
			info.State = KeyRetired
		}
		infos = append(infos, info)
	}
	for _, key := range slices.Backward(k.keys) {
		add(key.id, key.alg, key.term, key == k.assertion(now), valid.signed())
	}
	for _, s := range slices.Backward(k.secrets) {
		add(s.client.id, HS256, s.term, s == k.secret(now), valid.Refresh)
	}
	rank := map[KeyState]int{KeySigns: 0, KeyPublished: 1, KeyVerifies: 2, KeyRetired: 3}
	slices.SortStableFunc(infos, func(a, b KeyInfo) int { return rank[a.State] - rank[b.State] })
	return infos
}

// ErrOnlyKey means that without the key nothing could sign what verifiers know.
var ErrOnlyKey = errors.New("nothing else can sign yet: rotate first")

// Rotate makes the keys that sign from then on: one of the algorithm, and with
// secret (or for HS256) a new secret, too. Until then they are published and
// verify. It returns what it made.
func Rotate(dir string, alg Algorithm, secret bool, from time.Time) ([]KeyInfo, error) {
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("locking the key directory: %w", err)
	}
	defer unlock()
	before, err := openKeyring(dir, alg) // makes the first keys, where there are none
	if err != nil {
		return nil, err
	}
	if _, err := generateKey(dir, before.asymmetric(), from); err != nil {
		return nil, err
	}
	if secret || alg == HS256 {
		if err := generateSecret(dir, from); err != nil {
			return nil, err
		}
	}
	after, err := ReadKeyring(dir, alg)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, info := range before.Keys(from, Lifetimes{}) {
		known[info.File] = true
	}
	return slices.DeleteFunc(after.Keys(time.Now(), Lifetimes{}), func(info KeyInfo) bool { return known[info.File] }), nil
}

// Prune deletes the files of retired keys and returns what it deleted. A key
// whose file name does not begin with a time is not ours to delete: it stays.
func Prune(dir string, alg Algorithm, now time.Time, valid Lifetimes) ([]KeyInfo, error) {
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("locking the key directory: %w", err)
	}
	defer unlock()
	k, err := ReadKeyring(dir, alg)
	if err != nil {
		return nil, err
	}
	return prune(k.Keys(now, valid))
}

func prune(infos []KeyInfo) ([]KeyInfo, error) {
	pruned := []KeyInfo{}
	for _, info := range infos {
		if info.State != KeyRetired || info.SignsFrom.IsZero() && info.Algorithm != HS256 {
			continue
		}
		if err := os.Remove(info.File); err != nil {
			return pruned, fmt.Errorf("deleting a retired key: %w", err)
		}
		pruned = append(pruned, info)
	}
	return pruned, nil
}

// Withdraw deletes the key of that id at once, and with it the belief in all it
// has signed: for one that others may know. ErrOnlyKey if nothing could take its place.
func Withdraw(dir string, alg Algorithm, id string, now time.Time, valid Lifetimes) (KeyInfo, error) {
	unlock, err := lockDir(dir)
	if err != nil {
		return KeyInfo{}, fmt.Errorf("locking the key directory: %w", err)
	}
	defer unlock()
	k, err := ReadKeyring(dir, alg)
	if err != nil {
		return KeyInfo{}, err
	}
	infos := k.Keys(now, valid)
	i := slices.IndexFunc(infos, func(info KeyInfo) bool { return info.ID == id })
	if i < 0 {
		return KeyInfo{}, fmt.Errorf("key %q: %w", id, ErrNotFound)
	}
	info := infos[i]
	if info.State == KeySigns && !slices.ContainsFunc(infos, func(other KeyInfo) bool {
		return other.Algorithm == info.Algorithm && other.State == KeyVerifies
	}) {
		return KeyInfo{}, ErrOnlyKey
	}
	// Without this key the one before it would have another successor, and would be
	// believed again if it were still there.
	pruned, err := prune(infos)
	if err != nil {
		return KeyInfo{}, err
	}
	for _, other := range infos {
		if other.State == KeyRetired && other.Algorithm == info.Algorithm && other.ID != id && !slices.Contains(pruned, other) {
			return KeyInfo{}, fmt.Errorf("%s is retired and would be believed again: delete it first", other.File)
		}
	}
	if err := os.Remove(info.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return KeyInfo{}, fmt.Errorf("deleting a key: %w", err)
	}
	return info, nil
}

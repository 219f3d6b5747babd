package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/unicode/norm"
)

// maxPasswordWait is how long a password waits for a worker. It leaves whoever asked
// the better part of their time: in a flood, the worker would otherwise be given
// those alone that have waited so long that nobody is there for the answer.
const maxPasswordWait = 3 * time.Second

// ErrBusy means that more passwords wait to be hashed than can be in bounded time.
var ErrBusy = errors.New("too many passwords are waiting to be checked")

// errHalfway means that a password was found wrong, and that something failed after that.
var errHalfway = errors.New("of the work for one password, a part was not done")

// PasswordConfig says how new passwords are hashed and how much of the machine
// hashing may take.
type PasswordConfig struct {
	Hash    string // "bcrypt" or "argon2id"
	Cost    int    // bcrypt's; 4 to 16
	Workers int    // hashes at a time
	Queue   int    // callers that may wait for a worker
}

// Hasher hashes and verifies passwords, a bounded number at a time: hashing is
// expensive by design, and a flood of logins must not take the processors away
// from everything else.
type Hasher struct {
	cfg     PasswordConfig
	slots   chan struct{}
	wait    time.Duration // see maxPasswordWait
	waiting atomic.Int64
	workers []*worker  // those who have nothing to do; as many as free places
	free    sync.Mutex // guards workers
	end     func()     // of the workers' processes; nil: they have none
	decoy   string     // a hash of the configured kind that no password opens
	common  commonPasswords
}

// NewHasher returns a Hasher.
func NewHasher(cfg PasswordConfig) (*Hasher, error) {
	if cfg.Workers < 1 {
		return nil, errors.New("a hasher needs a worker")
	}
	if cfg.Hash != "bcrypt" && cfg.Hash != "argon2id" {
		return nil, fmt.Errorf("unknown password hash %q", cfg.Hash)
	}
	if cfg.Hash == "bcrypt" && (cfg.Cost < bcrypt.MinCost || cfg.Cost > maxBcryptCost) {
		return nil, fmt.Errorf("bcrypt's cost must be %d to %d", bcrypt.MinCost, maxBcryptCost)
	}
	h := &Hasher{cfg: cfg, slots: make(chan struct{}, cfg.Workers), wait: maxPasswordWait, common: newCommonPasswords()}
	h.decoy = decoy(cfg)
	for range cfg.Workers {
		h.workers = append(h.workers, newWorker())
	}
	return h, nil
}

// Isolate has the hashing done in processes that give way to others, one a worker,
// which are started when they are needed. It must be called before the Hasher is
// used, and Close afterwards.
func (h *Hasher) Isolate(command WorkerCommand) {
	life, end := context.WithCancel(context.Background())
	h.end = end
	for _, w := range h.workers {
		w.start = func(p Priority) (*workerProcess, error) { return startWorker(life, command, p) }
	}
}

// Close ends the processes for good. What they are at fails: whoever asked is not
// waited for any more.
func (h *Hasher) Close() {
	if h.end != nil {
		h.end()
	}
	h.free.Lock()
	defer h.free.Unlock()
	for _, w := range h.workers {
		w.close()
	}
}

// Hash returns the PHC string of password.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	if err := h.acquire(ctx); err != nil {
		return "", err
	}
	defer h.release()
	return h.hash(normalPassword(password))
}

// Verify reports whether password opens hash, and whether hash should be made
// anew because the configuration has changed since. An empty hash costs the time
// of a real one and is opened by nothing.
func (h *Hasher) Verify(ctx context.Context, hash, password string) (ok, stale bool, err error) {
	if err := h.acquire(ctx); err != nil {
		return false, false, err
	}
	defer h.release()
	known := hash != ""
	if !known {
		hash = h.decoy
	}
	normal := normalPassword(password)
	if ok, err = h.guess(hash, normal); err != nil {
		return false, false, err
	}
	if !ok && normal != password {
		// Other systems have hashed what was typed. The second try costs every
		// account the same, and is the last one: the hash is stale.
		if ok, err = h.guess(hash, password); err != nil {
			err = fmt.Errorf("%w: %w", errHalfway, err)
		}
		return ok && known, ok && known, err
	}
	return ok && known, ok && known && !h.current(hash, normal), nil
}

// guess is verifyHash, with the time of a failure evened out: an account whose
// hash was made when bcrypt's cost was lower, or of a password too long for bcrypt,
// must take as long as nobody's, or it would tell strangers that it is there. Other
// kinds of hashes, which imported accounts have until their first login, take the
// time they take.
func (h *Hasher) guess(hash, password string) (bool, error) {
	ok, err := h.verify(hash, password)
	if ok || err != nil {
		return ok, err
	}
	for _, cost := range h.missing(hash) {
		if _, err := h.verify(decoy(PasswordConfig{Hash: "bcrypt", Cost: cost}), password); err != nil {
			return false, fmt.Errorf("%w: %w", errHalfway, err)
		}
	}
	return false, nil
}

// missing are the costs of the hashes of bcrypt that hash is quicker by than nobody's.
func (h *Hasher) missing(hash string) []int {
	switch {
	case h.cfg.Hash != "bcrypt": // nobody's is not bcrypt's either
		return nil
	case strings.HasPrefix(hash, currentArgon2id()): // for good: it does not get stale
		return missingCosts(argonAsBcrypt, h.cfg.Cost)
	}
	return missingCosts(bcryptCost(hash), h.cfg.Cost)
}

// missingCosts are the costs of the hashes that, beside one of cost done, are as
// much work as one of cost wanted. Each cost is twice the work of the one below: one
// of 8 is one of 5 and those of 5, 6 and 7. A cost of 0 is unknown, and misses none.
func missingCosts(done, wanted int) (costs []int) {
	for cost := done; done > 0 && cost < wanted; cost++ {
		costs = append(costs, cost)
	}
	return costs
}

// full reports whether nobody more may wait. It saves whoever asks first what a
// refusal would have cost.
func (h *Hasher) full() bool { return h.waiting.Load() >= int64(h.cfg.Queue+h.cfg.Workers) }

// acquire waits for a worker's place, unless too many wait already, and not for long.
func (h *Hasher) acquire(ctx context.Context) error {
	if h.waiting.Add(1) > int64(h.cfg.Queue+h.cfg.Workers) {
		h.waiting.Add(-1)
		return ErrBusy
	}
	ctx, cancel := context.WithTimeout(ctx, h.wait)
	defer cancel()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		h.waiting.Add(-1)
		return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	}
}

func (h *Hasher) release() {
	<-h.slots
	h.waiting.Add(-1)
}

// argon2id reports whether password is hashed with argon2id: because that is
// configured, or because bcrypt would read only its first 72 bytes.
func (h *Hasher) argon2id(password string) bool {
	return h.cfg.Hash == "argon2id" || len(password) > bcryptMax
}

func (h *Hasher) hash(password string) (string, error) {
	t := passwordTask{Password: password, Hash: "bcrypt", Cost: h.cfg.Cost}
	if h.argon2id(password) {
		t.Hash = "argon2id"
	}
	r, err := h.work(t)
	return r.Hash, err
}

func (h *Hasher) verify(stored, password string) (bool, error) {
	if _, err := parseHash(stored); err != nil {
		return false, err
	}
	r, err := h.work(passwordTask{Stored: stored, Password: password})
	return r.Opens, err
}

// work gives a task to whoever worked last, so that the others' processes can end.
// Whoever calls it has a place, so there is one.
func (h *Hasher) work(t passwordTask) (passwordResult, error) {
	h.free.Lock()
	last := len(h.workers) - 1
	w := h.workers[last]
	h.workers = h.workers[:last]
	h.free.Unlock()
	defer func() {
		h.free.Lock()
		h.workers = append(h.workers, w)
		h.free.Unlock()
	}()
	return w.do(t)
}

// current reports whether hash is of the kind that hash would make today.
func (h *Hasher) current(hash, password string) bool {
	if h.argon2id(password) {
		return strings.HasPrefix(hash, currentArgon2id())
	}
	return bcryptCost(hash) == h.cfg.Cost // 0 for other kinds
}

// normalPassword makes equal what keyboards and systems write differently (NIST
// SP 800-63B-4 §3.1.1.2 asks for NFKC or NFKD before hashing).
func normalPassword(password string) string { return norm.NFKC.String(password) }

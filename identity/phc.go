package identity

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // only to verify imported PBKDF2 hashes
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Password hashes as they are stored: self-describing strings in the PHC format
// or in the modular crypt format that it grew out of. New ones are bcrypt, or
// argon2id where that is configured or bcrypt would not read the whole password;
// more kinds are verified, so that users of other systems can be imported.

// errHashFormat says that a stored hash is not one we can verify, or would take
// too much of the machine. It does not quote the hash.
var errHashFormat = errors.New("password hash of an unknown, malformed or too expensive kind")

// bcryptMax is where bcrypt stops reading.
const bcryptMax = 72

// What a stored hash may ask of us: parameters beyond these, which are each a
// few seconds or a few hundred megabytes, would let an import stop the gateway.
const (
	maxHashString    = 512
	maxBcryptCost    = 16
	maxArgonMemory   = 256 << 10 // KiB
	maxArgonWork     = 1 << 20   // KiB, memory times passes
	maxArgonThreads  = 64
	maxPBKDF2Work    = 5_000_000 // rounds times blocks of output
	minDerivedBytes  = 16
	maxDerivedBytes  = 64
	bcryptSHA256Name = "$bcrypt-sha256$"
)

// New argon2id hashes take what OWASP recommends where memory is shared with
// other work.
const (
	argonTime      = 2
	argonMemory    = 19 << 10 // KiB
	argonThreads   = 1
	argonKeyBytes  = 32
	argonSaltBytes = 16
	// argonAsBcrypt is the cost at which bcrypt takes about as long; no exact one does.
	argonAsBcrypt = 9
)

// verifyHash reports whether password opens stored.
func verifyHash(stored, password string) (bool, error) {
	opens, err := parseHash(stored)
	if err != nil {
		return false, err
	}
	return opens(password), nil
}

// parseHash reads a stored hash, which costs nothing, and returns what tells
// whether a password opens it, which is expensive by design.
func parseHash(stored string) (opens func(password string) bool, err error) {
	switch {
	case len(stored) > maxHashString:
		return nil, errHashFormat
	case strings.HasPrefix(stored, "$2a$"), strings.HasPrefix(stored, "$2b$"), strings.HasPrefix(stored, "$2y$"):
		return parseBcrypt(stored)
	case strings.HasPrefix(stored, bcryptSHA256Name):
		return parseBcryptSHA256(stored)
	case strings.HasPrefix(stored, "$argon2id$"):
		return parseArgon2id(stored)
	case strings.HasPrefix(stored, "$pbkdf2"):
		return parsePBKDF2(stored)
	}
	return nil, errHashFormat
}

func hashBcrypt(password string, cost int) (string, error) {
	b, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		return "", fmt.Errorf("hashing a password: %w", err)
	}
	return string(b), nil
}

// parseBcrypt reads $2b$cost$ with 22 characters of salt and 31 of hash. What it
// returns costs the same whatever the password's length, but a password that
// bcrypt would cut never matches.
func parseBcrypt(stored string) (func(string) bool, error) {
	const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	cost, err := bcrypt.Cost([]byte(stored))
	if err != nil || cost > maxBcryptCost || len(stored) != 60 || strings.Trim(stored[len("$2b$00$"):], alphabet) != "" {
		return nil, errHashFormat
	}
	crypt := []byte("$2b$" + stored[len("$2y$"):]) // $2y$ is PHP's name for what others call $2b$
	return func(password string) bool {
		fits := len(password) <= bcryptMax
		err := bcrypt.CompareHashAndPassword(crypt, []byte(password[:min(len(password), bcryptMax)]))
		return err == nil && fits
	}, nil
}

// bcryptCost is the cost of a bcrypt hash, 0 for others.
func bcryptCost(stored string) int {
	cost, err := bcrypt.Cost([]byte(stored))
	if err != nil {
		return 0
	}
	return cost
}

// parseBcryptSHA256 reads both versions of passlib's bcrypt_sha256:
//
//	$bcrypt-sha256$v=2,t=2b,r=12$salt$hash   bcrypt of base64(HMAC-SHA-256(key: salt, password))
//	$bcrypt-sha256$2b,12$salt$hash           bcrypt of base64(SHA-256(password))
func parseBcryptSHA256(stored string) (func(string) bool, error) {
	fields := strings.Split(strings.TrimPrefix(stored, bcryptSHA256Name), "$")
	if len(fields) != 3 || len(fields[1]) != 22 {
		return nil, errHashFormat
	}
	params, salt := fields[0], fields[1]
	var rounds string
	var digest func(password string) []byte
	switch {
	case strings.HasPrefix(params, "v=2,t=2b,r="), strings.HasPrefix(params, "v=2,t=2a,r="):
		rounds = params[len("v=2,t=2b,r="):]
		digest = func(password string) []byte {
			mac := hmac.New(sha256.New, []byte(salt))
			mac.Write([]byte(password))
			return mac.Sum(nil)
		}
	case strings.HasPrefix(params, "2b,"), strings.HasPrefix(params, "2a,"):
		rounds = params[len("2b,"):]
		digest = func(password string) []byte {
			sum := sha256.Sum256([]byte(password))
			return sum[:]
		}
	}
	cost, err := strconv.ParseUint(rounds, 10, 8)
	if err != nil {
		return nil, errHashFormat
	}
	opens, err := parseBcrypt(fmt.Sprintf("$2b$%02d$%s%s", cost, salt, fields[2]))
	if err != nil {
		return nil, err
	}
	return func(password string) bool {
		return opens(base64.StdEncoding.EncodeToString(digest(password)))
	}, nil
}

// argon2id in the PHC form: $argon2id$v=19$m=65536,t=3,p=1$salt$key.
func hashArgon2id(password string) string {
	salt := make([]byte, argonSaltBytes)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKeyBytes)
	return currentArgon2id() + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(key)
}

// currentArgon2id is how the hashes begin that are made today.
func currentArgon2id() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, argonMemory, argonTime, argonThreads)
}

func parseArgon2id(stored string) (func(string) bool, error) {
	fields := strings.Split(stored, "$") // "", argon2id, v=…, m=…,t=…,p=…, salt, key
	if len(fields) != 6 || fields[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return nil, errHashFormat
	}
	var memory, passes uint32
	var threads uint8
	_, err1 := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &memory, &passes, &threads)
	salt, err2 := base64.RawStdEncoding.Strict().DecodeString(fields[4])
	want, err3 := base64.RawStdEncoding.Strict().DecodeString(fields[5])
	if errors.Join(err1, err2, err3) != nil || fields[3] != fmt.Sprintf("m=%d,t=%d,p=%d", memory, passes, threads) ||
		threads < 1 || threads > maxArgonThreads || passes < 1 || memory < 8*uint32(threads) || memory > maxArgonMemory ||
		uint64(memory)*uint64(passes) > maxArgonWork || len(want) < minDerivedBytes || len(want) > maxDerivedBytes {
		return nil, errHashFormat
	}
	return func(password string) bool {
		got := argon2.IDKey([]byte(password), salt, passes, memory, threads, uint32(len(want))) // bounded above
		return subtle.ConstantTimeCompare(got, want) == 1
	}, nil
}

// parsePBKDF2 reads passlib's form, $pbkdf2-sha256$rounds$salt$key with "." for
// "+" in base64, and without a digest name for SHA-1.
func parsePBKDF2(stored string) (func(string) bool, error) {
	fields := strings.Split(stored, "$") // "", pbkdf2-sha256, rounds, salt, key
	if len(fields) != 5 {
		return nil, errHashFormat
	}
	var newHash func() hash.Hash
	switch fields[1] {
	case "pbkdf2":
		newHash = sha1.New
	case "pbkdf2-sha256":
		newHash = sha256.New
	case "pbkdf2-sha512":
		newHash = sha512.New
	default:
		return nil, errHashFormat
	}
	rounds, err1 := strconv.ParseUint(fields[2], 10, 32)
	salt, err2 := adaptedBase64(fields[3])
	want, err3 := adaptedBase64(fields[4])
	if errors.Join(err1, err2, err3) != nil || rounds < 1 || len(want) < minDerivedBytes || len(want) > maxDerivedBytes {
		return nil, errHashFormat
	}
	size := newHash().Size()
	if blocks := (len(want) + size - 1) / size; rounds*uint64(blocks) > maxPBKDF2Work { // a small positive number
		return nil, errHashFormat
	}
	return func(password string) bool {
		got, err := pbkdf2.Key(newHash, password, salt, int(rounds), len(want)) // bounded above
		return err == nil && subtle.ConstantTimeCompare(got, want) == 1
	}, nil
}

func adaptedBase64(s string) ([]byte, error) {
	return base64.RawStdEncoding.Strict().DecodeString(strings.ReplaceAll(s, ".", "+"))
}

// decoy makes up a hash of the configured kind: to verify a password against it
// costs what a real one costs, and no password is known that opens it. Hashing
// one in earnest would cost as much time at each start.
func decoy(cfg PasswordConfig) string {
	random := func(n int) string {
		b := make([]byte, n)
		_, _ = rand.Read(b) // never fails (crypto/rand)
		return base64.RawStdEncoding.EncodeToString(b)
	}
	if cfg.Hash == "argon2id" {
		return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads, random(argonSaltBytes), random(argonKeyBytes))
	}
	// bcrypt's alphabet has "." for "+"; its salt has 22 characters, its digest 31.
	text := strings.ReplaceAll(random(48), "+", ".")
	return fmt.Sprintf("$2a$%02d$%s%s", cfg.Cost, text[:22], text[22:22+31])
}

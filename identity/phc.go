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
// or in the modular crypt format that it grew out of. New ones are bcrypt,
// bcrypt-sha256 (for passwords of more than bcrypt's 72 bytes) or argon2id; more
// kinds are verified, so that users of other systems can be imported.

// errHashFormat says that a stored hash is not one we can verify. It does not
// quote the hash.
var errHashFormat = errors.New("password hash of an unknown or malformed kind")

// bcryptMax is where bcrypt stops reading.
const bcryptMax = 72

// What a stored hash may ask of us: parameters beyond these would let an import
// stop the gateway.
const (
	maxArgonMemory   = 1 << 20 // KiB
	maxArgonTime     = 64
	maxPBKDF2Rounds  = 10_000_000
	maxHashBytes     = 128
	minDerivedBytes  = 16
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
)

// verifyHash reports whether password opens stored.
func verifyHash(stored, password string) (bool, error) {
	switch {
	case strings.HasPrefix(stored, "$2a$"), strings.HasPrefix(stored, "$2b$"), strings.HasPrefix(stored, "$2y$"):
		return verifyBcrypt(stored, password)
	case strings.HasPrefix(stored, bcryptSHA256Name):
		return verifyBcryptSHA256(stored, password)
	case strings.HasPrefix(stored, "$argon2id$"):
		return verifyArgon2id(stored, password)
	case strings.HasPrefix(stored, "$pbkdf2"):
		return verifyPBKDF2(stored, password)
	}
	return false, errHashFormat
}

func hashBcrypt(password string, cost int) (string, error) {
	b, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		return "", fmt.Errorf("hashing a password: %w", err)
	}
	return string(b), nil
}

// verifyBcrypt costs the same whatever the password's length, but one that
// bcrypt would cut never matches.
func verifyBcrypt(stored, password string) (bool, error) {
	fits := len(password) <= bcryptMax
	// $2y$ is PHP's name for what others call $2b$.
	crypt := "$2b$" + stored[len("$2y$"):]
	err := bcrypt.CompareHashAndPassword([]byte(crypt), []byte(password[:min(len(password), bcryptMax)]))
	switch {
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, nil
	case err != nil:
		return false, errHashFormat
	}
	return fits, nil
}

// bcryptCost is the cost of a bcrypt hash, 0 for others.
func bcryptCost(stored string) int {
	cost, err := bcrypt.Cost([]byte(stored))
	if err != nil {
		return 0
	}
	return cost
}

// bcryptSHA256Key is what version 2 of passlib's bcrypt_sha256 gives to bcrypt:
// base64(HMAC-SHA-256(key: bcrypt's salt, password)).
func bcryptSHA256Key(salt, password string) []byte {
	mac := hmac.New(sha256.New, []byte(salt))
	mac.Write([]byte(password))
	return base64.StdEncoding.AppendEncode(nil, mac.Sum(nil))
}

func verifyBcryptSHA256(stored, password string) (bool, error) {
	fields := strings.Split(strings.TrimPrefix(stored, bcryptSHA256Name), "$")
	if len(fields) != 3 || len(fields[1]) != 22 || len(fields[2]) != 31 {
		return false, errHashFormat
	}
	var key []byte
	switch version, rest, _ := strings.Cut(fields[0], ","); {
	case version == "v=2" && (strings.HasPrefix(rest, "t=2b,") || strings.HasPrefix(rest, "t=2a,")):
		key = bcryptSHA256Key(fields[1], password)
	case version == "2b", version == "2a": // version 1: "2b,12", and no HMAC
		sum := sha256.Sum256([]byte(password))
		key = base64.StdEncoding.AppendEncode(nil, sum[:])
	default:
		return false, errHashFormat
	}
	cost := fields[0][strings.LastIndexAny(fields[0], ",=")+1:]
	if len(cost) == 1 {
		cost = "0" + cost
	}
	return verifyBcrypt("$2b$"+cost+"$"+fields[1]+fields[2], string(key))
}

// argon2id in the PHC form: $argon2id$v=19$m=65536,t=3,p=1$salt$key.
func hashArgon2id(password string) string {
	salt := make([]byte, argonSaltBytes)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKeyBytes)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

func isCurrentArgon2id(stored string) bool {
	return strings.HasPrefix(stored, fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, argonMemory, argonTime, argonThreads))
}

func verifyArgon2id(stored, password string) (bool, error) {
	fields := strings.Split(stored, "$") // "", argon2id, v=…, m=…,t=…,p=…, salt, key
	if len(fields) != 6 {
		return false, errHashFormat
	}
	var version, memory, passes, threads int
	_, err1 := fmt.Sscanf(fields[2], "v=%d", &version)
	_, err2 := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &memory, &passes, &threads)
	salt, err3 := base64.RawStdEncoding.Strict().DecodeString(fields[4])
	want, err4 := base64.RawStdEncoding.Strict().DecodeString(fields[5])
	if errors.Join(err1, err2, err3, err4) != nil || version != argon2.Version ||
		passes < 1 || passes > maxArgonTime || threads < 1 || threads > 255 || memory < 8*threads || memory > maxArgonMemory ||
		len(want) < minDerivedBytes || len(want) > maxHashBytes {
		return false, errHashFormat
	}
	got := argon2.IDKey([]byte(password), salt, uint32(passes), uint32(memory), uint8(threads), uint32(len(want))) //nolint:gosec // bounded above
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

// verifyPBKDF2 reads passlib's form, $pbkdf2-sha256$rounds$salt$key with "." for
// "+" in base64, and without a digest name for SHA-1.
func verifyPBKDF2(stored, password string) (bool, error) {
	fields := strings.Split(stored, "$") // "", pbkdf2-sha256, rounds, salt, key
	if len(fields) != 5 {
		return false, errHashFormat
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
		return false, errHashFormat
	}
	rounds, err1 := strconv.Atoi(fields[2])
	salt, err2 := adaptedBase64(fields[3])
	want, err3 := adaptedBase64(fields[4])
	if errors.Join(err1, err2, err3) != nil || rounds < 1 || rounds > maxPBKDF2Rounds || len(want) < minDerivedBytes || len(want) > maxHashBytes {
		return false, errHashFormat
	}
	got, err := pbkdf2.Key(newHash, password, salt, rounds, len(want))
	if err != nil {
		return false, fmt.Errorf("verifying a password: %w", err)
	}
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

func adaptedBase64(s string) ([]byte, error) {
	return base64.RawStdEncoding.Strict().DecodeString(strings.ReplaceAll(s, ".", "+"))
}

package mongostore

import (
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"portcullis/identity"
)

// errDocument means that a document is not what this package wrote.
var errDocument = errors.New("malformed document")

// inputError says what is wrong with what a caller wants stored or found.
type inputError string

func (e inputError) Error() string { return string(e) }

// failure wraps an error with what was being done, and with what it means to
// the callers of a Store; nil stays nil.
func failure(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, mongo.ErrNoDocuments):
		return fmt.Errorf("mongostore: %s: %w", doing, identity.ErrNotFound)
	case isUnavailable(err):
		return fmt.Errorf("mongostore: %s: %w: %w", doing, identity.ErrUnavailable, err)
	default:
		return fmt.Errorf("mongostore: %s: %w", doing, err)
	}
}

// isUnavailable says whether an error says nothing about the data. That is what
// all errors of the driver do but the server's own answers to a command, and
// so do the answers of a server that cannot serve now.
func isUnavailable(err error) bool {
	if isOurs(err) || errors.As(err, new(mongo.MarshalError)) {
		return false
	}
	if !isAnswer(err) {
		return true
	}
	if we := (mongo.WriteException{}); errors.As(err, &we) && we.WriteConcernError != nil {
		return true
	}
	var answer mongo.ServerError
	errors.As(err, &answer)
	for _, label := range []string{"RetryableWriteError", "TransientTransactionError", "SystemOverloadedError"} {
		if answer.HasErrorLabel(label) {
			return true
		}
	}
	return slices.ContainsFunc([]int{
		1,                                              // InternalError; FerretDB's when its own database is away
		6,                                              // HostUnreachable
		7,                                              // HostNotFound
		13,                                             // Unauthorized
		18,                                             // AuthenticationFailed
		24,                                             // LockTimeout
		46,                                             // LockBusy
		89,                                             // NetworkTimeout
		91,                                             // ShutdownInProgress
		112,                                            // WriteConflict
		133,                                            // FailedToSatisfyReadPreference
		189,                                            // PrimarySteppedDown
		202,                                            // NetworkInterfaceExceededTimeLimit
		262,                                            // ExceededTimeLimit
		9001, 10058, 10107, 11600, 11602, 13435, 13436, // connections lost, servers that are not primary (any more)
	}, answer.HasErrorCode)
}

// lostRace says whether a write failed because of another at the same time,
// and had better be tried again.
func lostRace(err error) bool {
	var answer mongo.ServerError
	return mongo.IsDuplicateKeyError(err) || errors.As(err, &answer) && slices.ContainsFunc([]int{
		112,      // WriteConflict
		16777220, // SQLSTATE 40001 as FerretDB passes it on: serialization failure
		16908292, // SQLSTATE 40P01: deadlock, to which its unique indexes are prone
	}, answer.HasErrorCode)
}

// isAnswer says whether an error is what the server said about a command.
func isAnswer(err error) bool {
	return errors.As(err, new(mongo.ServerError)) && !mongo.IsTimeout(err) && !mongo.IsNetworkError(err)
}

// isOurs tells errors that were made here from the driver's.
func isOurs(err error) bool {
	if errors.As(err, new(inputError)) {
		return true
	}
	for _, ours := range []error{
		errDocument, identity.ErrNotFound, identity.ErrConflict, identity.ErrLastAdministrator,
		identity.ErrUsernameTaken, identity.ErrEmailTaken,
	} {
		if errors.Is(err, ours) {
			return true
		}
	}
	return false
}

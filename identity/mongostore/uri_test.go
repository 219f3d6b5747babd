package mongostore

import (
	"strings"
	"testing"
	"time"
)

func TestTheDatabaseIsThatOfThePathOrPortcullis(t *testing.T) {
	for uri, want := range map[string]string{
		"mongodb://localhost":                                  "portcullis",
		"mongodb://localhost/":                                 "portcullis",
		"mongodb://localhost/?appName=x":                       "portcullis",
		"mongodb://localhost/accounts":                         "accounts",
		"mongodb://localhost:27017,other/accounts?w=1":         "accounts",
		"mongodb://user:p%40ss%2F@localhost/accounts?a=b/c":    "accounts",
		"mongodb://user:pass%3Fword@localhost":                 "portcullis",
		"mongodb://localhost/a%2Db":                            "a-b",
		"mongodb://user:pass@[::1]:27017/accounts?authSource=": "accounts",
	} {
		if got := database(uri); got != want {
			t.Errorf("%s: %q, want %q", uri, got, want)
		}
	}
}

func TestNoErrorAboutAURIHoldsItsSecrets(t *testing.T) {
	for _, uri := range []string{
		"mongodb://user:s3cret",
		"mongo://user:s3cret@localhost",
		"mongodb://user:s3cret@",
		"mongodb://user:s3cret%@localhost",
		"mongodb://user:s3cret%zz@localhost",
		"mongodb://user:s3cret%s3cret@localhost",
		"mongodb://us%er:s3cret@localhost",
		"mongodb://user:x:s3cret@localhost",
		"mongodb://user:x/s3cret@localhost",
		"mongodb://user:x@s3cret@localhost",
		"mongodb://user:x@s3cret/y@localhost",
		"mongodb://user:s3cret@localhost:port",
		"mongodb://user:s3cret@localhost/?tls=maybe",
		"mongodb://user:s3cret@localhost?tls=true",
		"mongodb://user:s3cret@localhost/?authMechanism=MONGODB-X509",
		"mongodb://user:s3cret@localhost/?directConnection=true&loadBalanced=true",
		"mongodb://localhost/?tlsCertificateKeyFilePassword=s3cret%zz",
		"mongodb://localhost/?tlsCertificateKeyFilePassword=s3cret&tls=maybe",
		"mongodb://localhost/?authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN=s3cret",
		"user:s3cret@localhost",
		"s3cret@",
		"mongodb://user:x?s3cret@localhost/?tls=maybe",
		"mongodb://user:x?s3cret",
	} {
		_, err := Open(t.Context(), uri)
		if err == nil {
			t.Errorf("%s: opened, want an error", uri)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the error holds the secret: %v", uri, err)
		}
	}
}

func TestAWrongURIIsToldWhatIsWrong(t *testing.T) {
	for uri, want := range map[string]string{
		"localhost:27017":                          "scheme",
		"mongodb://user:p@ss@localhost":            "percent-encode",
		"mongodb://user:p%zz@localhost":            "percent-encode",
		"mongodb://user:pass@localhost/?tls=maybe": "maybe",
		"mongodb://user:pass@localhost:x/":         "before the options",
		"mongodb://localhost/?timeoutMS=x":         "timeoutMS",
	} {
		if _, err := parse(uri); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", uri, err, want)
		}
	}
}

func TestTheURIDecidesButReadsGoToThePrimary(t *testing.T) {
	plain, err := parse("mongodb://localhost/?readPreference=secondary")
	if err != nil {
		t.Fatal(err)
	}
	if *plain.Timeout != callTimeout || *plain.ServerSelectionTimeout != callTimeout || *plain.RetryWrites ||
		plain.WriteConcern.W != "majority" || plain.ReadPreference.Mode().String() != "primary" {
		t.Error("a plain URI does not give the documented defaults")
	}
	own, err := parse("mongodb://localhost/?timeoutMS=500&serverSelectionTimeoutMS=100&retryWrites=true&w=1")
	if err != nil {
		t.Fatal(err)
	}
	if *own.Timeout != 500*time.Millisecond || *own.ServerSelectionTimeout != 100*time.Millisecond || !*own.RetryWrites || own.WriteConcern.W != 1 {
		t.Error("the options of the URI are not honoured")
	}
}

func TestTheSuccessorOfAPrefixIsTheLeastTextAfterAllThatBeginWithIt(t *testing.T) {
	for prefix, want := range map[string]string{
		"": "", "a": "b", "az": "a{", "a\x00": "a\x01", "\x7f": "\u0080", "\u07ff": "\u0800",
		"\uD7FF": "\uE000", "x\U0010FFFF": "y", "\U0010FFFF\U0010FFFF": "", "\uFFFF": "\U00010000",
	} {
		got := successor(prefix)
		if got != want {
			t.Errorf("successor(%q) is %q, want %q", prefix, got, want)
		}
		if got != "" && (got <= prefix || got <= prefix+"\U0010FFFF\U0010FFFF" || strings.HasPrefix(got, prefix)) {
			t.Errorf("successor(%q) is %q, which is not after all that begin with it", prefix, got)
		}
	}
}

package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"strings"
	"testing"
)

// The tests of forward, with TLS between the client and the gateway: serveEdge and
// dial look at the name of the test.
func TestOverTLS(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"KeepsEveryByteThatMatters":        TestForwardKeepsEveryByteThatMatters,
		"AnswersPipelinedRequestsInOrder":  TestForwardAnswersPipelinedRequestsInOrder,
		"PassesOnEachPieceWhenItComes":     TestForwardPassesOnEachPieceWhenItComes,
		"SendsEachPieceOfAnUpload":         TestForwardSendsEachPieceOfAnUploadWhenItComes,
		"IsFullDuplex":                     TestForwardIsFullDuplex,
		"PassesOnAnEarlyAnswer":            TestForwardPassesOnAnEarlyAnswer,
		"AnswersWhileTheBodyIsHeldBack":    TestForwardAnswersWhileTheClientHoldsBackTheRestOfItsBody,
		"AllowsASlowBodyAndNotASlowHead":   TestForwardAllowsASlowBodyAndNotASlowHead,
		"GivesUpOnAnUploadThatStops":       TestForwardGivesUpOnAnUploadThatStops,
		"GivesUpOnAClientThatTakesNothing": TestForwardGivesUpOnAClientThatTakesNothing,
		"EndsTheUpstreamsWork":             TestForwardEndsTheUpstreamsWorkWhenTheClientLeaves,
		"KeepsWhatAClientSays":             TestForwardKeepsWhatAClientSaysWhileItIsWatched,
		"NeverMixesAnswers":                TestForwardNeverMixesAnswers,
		"LetsTheUpstreamDecide":            TestForwardLetsTheUpstreamDecideAboutTheBody,
		"AHandlerDecidesAboutTheBody":      TestAHandlerDecidesAboutTheBodyItself,
		"RefusesABodyThatIsMalformed":      TestForwardRefusesARequestBodyThatIsMalformed,
		"CutsAnAnswerThatDoesNotEnd":       TestForwardCutsAnAnswerThatDoesNotEnd,
		"LimitsTheBody":                    TestForwardLimitsTheBody,
		"Upgrades":                         TestForwardUpgrades,
		"LosesNothingAroundAnUpgrade":      TestForwardLosesNothingAroundAnUpgrade,
		"ATunnelEndsWhenNothingMoves":      TestATunnelEndsWhenNothingMoves,
		"ATunnelEndsWhenNothingIsTaken":    TestATunnelEndsWhenTheClientTakesNothing,
		"ATunnelCarriesMuch":               TestATunnelCarriesMuch,
	} {
		t.Run(name, test)
	}
}

func isOverTLS(t testing.TB) bool { return strings.HasPrefix(t.Name(), "TestOverTLS/") }

// serverTLS and clientTLS belong together; the name is example.com.
func serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"http/1.1"}}
}

func clientTLS(t testing.TB) *tls.Config {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{RootCAs: pool, ServerName: "example.com"}
}

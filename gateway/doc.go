// Package gateway is the edge: one request, from the door to the upstream and back.
//
// walk and road in gateway.go are the whole life of a request, read top to bottom, and
// their order is the security property: one canonical path, strip what only the
// gateway may say, authenticate, decide, route, forward. What a request needs to
// agree on (routes, policy, identity) is one State behind one atomic pointer. Nearly
// all requests get there by the fast path (fastpath.go), the others through the HTTP
// library's server.
//
// # Beside httputil.ReverseProxy
//
// What the tests of net/http/httputil's ReverseProxy ask of a reverse proxy, and
// our tests of the same, or why it is not done here:
//
//	TestReverseProxy
//		TestForwardKeepsEveryByteThatMatters, TestTheUpstreamIsToldWhoCalls
//	TestReverseProxyStripHeadersPresentInConnection
//		TestConnectionTakesAwayTheClientsOwnFieldsOnly, TestForwardKeepsEveryByteThatMatters
//	TestReverseProxyStripEmptyConnection
//		TestForwardKeepsEveryByteThatMatters
//	TestXForwardedFor
//		TestForwardedForIsBelievedFromTrustedProxiesOnly
//	TestXForwardedFor_Omit
//		declined: the upstream is always told
//	TestReverseProxyRewriteStripsForwarded
//		TestForwardedForIsBelievedFromTrustedProxiesOnly, TestEverySpellingOfAReservedNameIsDropped
//	TestReverseProxyQuery
//		TestForwardKeepsEveryByteThatMatters; routes add no query
//	TestReverseProxyFlushInterval
//		TestForwardPassesOnEachPieceWhenItComes: always at once
//	TestReverseProxyResponseControllerFlushInterval
//		declined: at once is the only interval
//	TestReverseProxyFlushIntervalHeaders
//		TestForwardPassesOnEachPieceWhenItComes: the head, too
//	TestReverseProxyCancellation
//		TestForwardEndsTheUpstreamsWorkWhenTheClientLeaves
//	TestNilBody
//		TestForwardKeepsEveryByteThatMatters: no body is told apart from one of no bytes
//	TestUserAgentHeader
//		TestClientMaySayWhatIsItsToSay: passed on as it is, and none made up
//	TestReverseProxyGetPutBuffer
//		TestForwardCarriesWhatIsLargeInConstantMemory
//	TestReverseProxy_Post
//		TestForwardKeepsEveryByteThatMatters, TestForwardSendsEachPieceOfAnUploadWhenItComes
//	TestReverseProxy_NilBody
//		TestForwardKeepsEveryByteThatMatters
//	TestReverseProxy_AllocatedHeader
//		declined: there is no header map to be nil
//	TestReverseProxyModifyResponse
//		TestHeaderFieldsAreSetAndRemoved, TestForwardAddsFieldsToTheAnswer; code cannot be hooked in
//	TestReverseProxyErrorHandler
//		TestBadNewsFromBehind, TestAnUpstreamThatIsNotThere
//	TestReverseProxy_CopyBuffer
//		TestForwardCutsAnAnswerThatDoesNotEnd
//	TestServeHTTPDeepCopy
//		TestNothingOfOneRequestIsSeenInAnother: the upstream's request is written anew
//	TestClonesRequestHeaders
//		TestNothingOfOneRequestIsSeenInAnother
//	TestModifyResponseClosesBody
//		TestForwardKeepsNoConnectionThatIsNotClean
//	TestReverseProxy_PanicBodyError
//		TestForwardCutsAnAnswerThatDoesNotEnd: the connection is cut, without a panic
//	TestReverseProxy_PanicClosesIncomingBody
//		TestForwardGivesUpOnAnUploadThatStops, TestBadNewsFromBehind
//	TestSelectFlushInterval
//		declined: at once is the only interval
//	TestReverseProxyWebSocket
//		TestForwardUpgrades
//	TestReverseProxyWebSocketCancellation
//		TestForwardUpgrades, TestAShutdownEndsTunnelsLast
//	TestReverseProxyWebSocketHalfTCP
//		TestForwardUpgrades
//	TestReverseProxyUpgradeNoCloseWrite
//		declined: both sides are TCP or TLS, which can close one direction
//	TestUnannouncedTrailer
//		TestForwardKeepsEveryByteThatMatters: trailers, announced or not, are dropped on purpose
//	TestSetURL
//		TestAPrefixIsCutOffOrReplaced; a target is an origin without a path
//	TestSingleJoinSlash
//		TestAPrefixIsCutOffOrReplaced
//	TestJoinURLPath
//		TestAPrefixIsCutOffOrReplaced, TestPathWithTwoReadingsIsRefused: one spelling, or 400
//	TestReverseProxyRewriteReplacesOut
//		declined: there is no hook that could replace the request
//	Test1xxHeadersNotModifiedAfterRoundTrip
//		TestForwardKeepsEveryByteThatMatters: informational answers are not passed on
//	Test1xxResponses
//		TestForwardRefusesWhatIsNoAnswer, TestForwardLetsTheUpstreamDecideAboutTheBody: 100 for who asked, the others dropped on purpose
//	TestReverseProxyQueryParameterSmugglingDirectorDoesNotParseForm
//		TestForwardKeepsEveryByteThatMatters: a query is passed on as sent, and decides nothing here
//	TestReverseProxyQueryParameterSmugglingDirectorParsesForm
//		declined: queries are not parsed, so there are not two readings
//	TestReverseProxyQueryParameterSmugglingRewrite
//		declined, likewise
//	TestReverseProxyQueryParameterSmugglingRewritePreservesRawQuery
//		TestForwardKeepsEveryByteThatMatters
//	TestReverseProxyHijackCopyError
//		TestATunnelEndsWhenTheClientTakesNothing, TestForwardUpgrades
//	TestReverseProxyInvalidUpstream100ContinueDoNotHang
//		TestForwardSendsTheBodyToAnUpstreamThatDoesNotKnowExpect, TestBadNewsFromBehind
package gateway

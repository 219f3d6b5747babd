package gateway

// The names of the fields that tell an upstream who is calling. The gateway
// says them or nobody does: see upstream/README.md.
const (
	fieldUserID          = "X-User-Id"
	fieldUserName        = "X-User-Name"
	fieldUserEmail       = "X-User-Email"
	fieldUserRoles       = "X-User-Roles"
	fieldUserPermissions = "X-User-Permissions"
	fieldUserTenant      = "X-User-Tenant"
	fieldSessionID       = "X-Session-Id"
	fieldAssertion       = "X-Identity-Assertion"
	fieldRequestID       = "X-Request-Id"
	fieldForwardedFor    = "X-Forwarded-For"
	fieldForwardedProto  = "X-Forwarded-Proto"
	fieldForwardedHost   = "X-Forwarded-Host"
	fieldTraceparent     = "traceparent"
	fieldGatewayError    = "X-Gateway-Error"
)

// fieldClass says what becomes of a field that a client sent.
type fieldClass uint8

const (
	classEndToEnd      fieldClass = iota // the client's to say: forwarded as it is
	classHop                             // about this connection only: never forwarded
	classExpect                          // as classHop, and the client waits for an answer to it
	classReserved                        // ours to say: never forwarded, whoever says it
	classHost                            // forwarded as the request's authority
	classAuthorization                   // forwarded only where the route asks for it
	classConnection                      // names further fields to drop
	classContentLength
	classTransferEncoding
	classUpgrade
	classRequestID   // reserved, and believed when it comes from a trusted proxy
	classTraceparent // reserved, and continued when it is well formed
	classForwardedFor
	classForwardedProto
	classForwardedHost
	classForwarded
	classCookie    // forwarded without the cookies that are ours
	classCSRFToken // forwarded unless it was for us
)

// longestClassified is the length of the longest name in classOf.
const longestClassified = 40

// classOf looks up a folded name. A switch, so that there is no table to
// initialise and the compiler makes the lookup cheap.
//
// The reserved names are those of this gateway, those by which other
// authenticating proxies vouch for a caller (an upstream that was moved here
// from one of them may still believe them), and those with which a client could
// make an upstream act on another method, path or address than the one that was
// decided on.
func classOf(folded []byte) fieldClass {
	switch string(folded) {
	case "host":
		return classHost
	case "connection":
		return classConnection
	case "content-length":
		return classContentLength
	case "transfer-encoding":
		return classTransferEncoding
	case "upgrade":
		return classUpgrade
	case "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
		"proxy-authentication-info", "te", "trailer", "http2-settings", "alt-svc":
		return classHop
	case "expect":
		return classExpect
	case "authorization":
		return classAuthorization
	case "x-request-id":
		return classRequestID
	case "traceparent":
		return classTraceparent
	case "x-forwarded-for":
		return classForwardedFor
	case "x-forwarded-proto":
		return classForwardedProto
	case "x-forwarded-host":
		return classForwardedHost
	case "forwarded":
		return classForwarded
	case "cookie":
		return classCookie
	case "x-csrf-token":
		return classCSRFToken

	// This gateway's own.
	case "x-user-id", "x-user-name", "x-user-email", "x-user-roles", "x-user-permissions",
		"x-user-tenant", "x-session-id", "x-identity-assertion", "x-gateway-error":
		return classReserved
	// oauth2-proxy and its forward-auth users.
	case "x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username",
		"x-forwarded-access-token", "x-auth-request-user", "x-auth-request-email", "x-auth-request-groups",
		"x-auth-request-preferred-username", "x-auth-request-access-token", "x-auth-request-redirect":
		return classReserved
	// Authelia, authentik and the Remote-* family.
	case "remote-user", "remote-groups", "remote-email", "remote-name", "x-remote-user", "x-remote-group",
		"x-remote-groups", "x-remote-email", "x-webauth-user", "x-authentik-username", "x-authentik-groups",
		"x-authentik-email", "x-authentik-name", "x-authentik-uid", "x-authentik-entitlements", "x-authentik-jwt",
		"x-vouch-user":
		return classReserved
	// Kong, Pomerium, identity-aware proxies of the clouds.
	case "x-consumer-id", "x-consumer-username", "x-consumer-custom-id", "x-consumer-groups",
		"x-anonymous-consumer", "x-authenticated-userid", "x-authenticated-scope", "x-authenticated-groups",
		"x-credential-identifier", "x-credential-username", "x-userinfo", "x-pomerium-jwt-assertion",
		"x-pomerium-claim-email", "x-pomerium-claim-groups", "x-pomerium-claim-user", "x-pomerium-claim-name",
		"teleport-jwt-assertion", "tailscale-user-login", "tailscale-user-name", "x-goog-iap-jwt-assertion",
		"x-goog-authenticated-user-id", "x-goog-authenticated-user-email", "x-amzn-oidc-data",
		"x-amzn-oidc-identity", "x-amzn-oidc-accesstoken", "cf-access-jwt-assertion", "cf-access-authenticated-user-email",
		"x-ms-client-principal", "x-ms-client-principal-id", "x-ms-client-principal-name", "x-ms-client-principal-idp":
		return classReserved
	// Where the request came from and what it was.
	case "x-forwarded", "x-forwarded-port",
		"x-forwarded-server", "x-forwarded-scheme", "x-forwarded-ssl", "x-forwarded-proto-version",
		"x-forwarded-prefix", "x-forwarded-path", "x-forwarded-uri", "x-forwarded-method", "x-forwarded-by",
		"x-forwarded-client-cert", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip",
		"cf-connecting-ip", "fastly-client-ip", "client-ip", "x-original-forwarded-for", "x-envoy-external-address",
		"x-scheme", "x-url-scheme", "front-end-https", "x-host", "x-ssl-client-cert", "x-ssl-client-verify",
		"ssl-client-cert", "ssl-client-verify", "ssl-client-subject-dn", "ssl-client-issuer-dn", "x-client-cert", "x-client-verify",
		"x-ssl-client-dn", "x-ssl-client-s-dn", "x-ssl-client-cn", "x-forwarded-tls-client-cert", "x-forwarded-tls-client-cert-info",
		"x-amzn-mtls-clientcert", "x-amzn-mtls-clientcert-leaf", "x-amzn-mtls-clientcert-subject":
		return classReserved
	// Overrides: the policy decided on the real method and path, and for all that answers there.
	case "x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-original-uri",
		"x-original-method", "x-original-host", "x-rewrite-url", "x-envoy-original-path", "x-middleware-subrequest", "proxy":
		return classReserved
	}
	return classEndToEnd
}

// fold maps a field name to the name that servers who fold names would take it
// for: CGI, WSGI, PHP and others map every character that is neither letter nor
// digit to "_", so X_User_Id, X.User.Id and X-User-Id are one name to them. It
// returns nil for a name that is too long to be a classified one.
func fold(dst *[longestClassified]byte, name []byte) []byte {
	if len(name) > longestClassified {
		return nil
	}
	for i, c := range name {
		dst[i] = foldByte(c)
	}
	return dst[:len(name)]
}

func foldByte(c byte) byte {
	const (
		none    = "----------------"
		letters = "-abcdefghijklmnopqrstuvwxyz-----"
		folded  = none + none + none + "0123456789------" + letters + letters +
			none + none + none + none + none + none + none + none
	)
	return folded[c]
}

// reservedResponseField reports whether an upstream's answer must not carry the
// field: it is the gateway's to say, or would hand the client a proof that was
// meant for the upstream alone (an upstream that echoes what it received).
func reservedResponseField(name []byte) bool {
	var buf [longestClassified]byte
	switch string(fold(&buf, name)) {
	case "x-gateway-error", "x-identity-assertion", "x-request-id":
		return true
	}
	return false
}

package config

// TLS is how clients are spoken to. It is on if there is a certificate or a domain to
// get one for.
type TLS struct {
	Certs      []Certificate `yaml:"certs" doc:"the certificates; the first is for clients that ask for no name, or one that nobody has"`
	MinVersion string        `yaml:"min_version" enum:"tls1.2|tls1.3" default:"tls1.2" doc:"the oldest version that is spoken (RFC 5246, RFC 8446)"`
	ClientCA   string        `yaml:"client_ca" format:"file" doc:"PEM file of the authorities that vouch for clients"`
	ClientAuth string        `yaml:"client_auth" enum:"none|request|require" default:"none" doc:"whether clients may or must have a certificate; it lets them connect and says nothing about who is calling"`
	Redirect   string        `yaml:"redirect" format:"address" empty:"true" doc:"where plain HTTP is answered with 308 to https; \"\" is nowhere"`
	ACME       ACME          `yaml:"acme"`
}

// Certificate is a pair of PEM files. They are read again when they change.
type Certificate struct {
	Cert string `yaml:"cert" format:"file" required:"true" doc:"PEM file of the certificate and its chain"`
	Key  string `yaml:"key" format:"file" required:"true" doc:"PEM file of its key"`
}

// ACME is how certificates are got from an authority (RFC 8555), by tls-alpn-01 on
// listen, which must be reached at port 443, or http-01 on tls.redirect, at port 80.
type ACME struct {
	Domains   []string `yaml:"domains" format:"host" doc:"host names to get certificates for; the terms of the authority are accepted"`
	Email     string   `yaml:"email" doc:"where the authority writes to"`
	Cache     string   `yaml:"cache" format:"file" default:"data/acme" doc:"directory for the account's key and the certificates"`
	Directory string   `yaml:"directory" format:"url" default:"https://acme-v02.api.letsencrypt.org/directory" doc:"URL of the authority"`
}

// On reports whether clients are spoken to over TLS.
func (t TLS) On() bool { return len(t.Certs)+len(t.ACME.Domains) > 0 }

func checkEdge(c *Config, wrong complain) {
	if c.ProxyProtocol != "off" && len(c.TrustedProxies) == 0 {
		wrong("proxy_protocol", "is of no use while no proxy is trusted", "trusted_proxies")
	}
	checkTLS(c, wrong)
}

func checkTLS(c *Config, wrong complain) {
	t := c.TLS
	switch {
	case t.ClientAuth == "none" && t.ClientCA != "":
		wrong("tls.client_ca", "is of no use while client_auth is none", "tls.client_auth")
	case t.ClientAuth != "none" && t.ClientCA == "":
		wrong("tls.client_ca", "is missing; client_auth needs it", "tls.client_auth")
	}
	const redirect = "tls.redirect"
	switch {
	case t.Redirect == "":
	case !t.On():
		wrong(redirect, "would lead to https, for which there is no certificate", "tls.certs", "tls.acme.domains")
	case t.Redirect == c.Listen:
		wrong(redirect, "is where clients connect with TLS", "listen")
	case t.Redirect == c.Admin.Listen:
		wrong(redirect, "is where operators connect", "admin.listen")
	}
}

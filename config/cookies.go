package config

import "net/url"

// Cookies is how browsers are signed in with ?mode=cookie.
type Cookies struct {
	Origins []*url.URL `yaml:"origins" doc:"origins, beside the issuer's, whose pages may use the cookies; cors has to let them have credentials, too"`
}

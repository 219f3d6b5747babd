package config

import (
	"fmt"
	"slices"
	"time"
)

// RateLimit is how many requests a caller may make on the routes that name it.
type RateLimit struct {
	Name     string        `yaml:"name" format:"name" required:"true" doc:"what routes and clients know it by"`
	Key      string        `yaml:"key" enum:"user|address|tenant|route" required:"true" doc:"what is counted: each user (a stranger is their address), each address (of IPv6 each /64), each tenant, or everybody on a route together"`
	Requests int           `yaml:"requests" required:"true" min:"1" max:"1000000" doc:"how many in that time"`
	Per      time.Duration `yaml:"per" default:"1m" min:"1s" max:"24h" doc:"that time"`
	Burst    int           `yaml:"burst" default:"0" min:"0" max:"100000" doc:"how many at once; 0 is as many as requests"`
}

// checkRateLimits wants each limit named once, and used, and each name to be one.
func checkRateLimits(c *Config, wrong complain) {
	var names []string
	used := map[string]bool{}
	for i, l := range c.RateLimits {
		if first := slices.Index(names, l.Name); first >= 0 {
			wrong(fmt.Sprintf("rate_limits[%d].name", i), fmt.Sprintf("is the name of rate_limits[%d] too", first))
		}
		names = append(names, l.Name)
	}
	use := func(path string, wanted []string) {
		for i, name := range wanted {
			used[name] = true
			if !slices.Contains(names, name) {
				wrong(fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("there is no rate limit %q%s", clip(name), didYouMean(name, names)), "rate_limits")
			}
		}
	}
	use("identity.rate_limits", c.Identity.RateLimits)
	for i, r := range c.Routes {
		use(fmt.Sprintf("routes[%d].rate_limits", i), r.RateLimits)
	}
	for i, name := range names {
		if name != "" && !used[name] {
			wrong(fmt.Sprintf("rate_limits[%d]", i), "is used by no route", "routes", "identity.rate_limits")
		}
	}
}

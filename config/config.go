// Package config turns gateway.yaml and the environment into values that
// cannot be wrong any more, or into a list of everything that is wrong.
//
// Only cmd/gateway imports it: the other rooms take their own parameters and
// know nothing of YAML.
package config

import (
	"log/slog"
	"net/netip"
	"net/url"
	"time"
)

// Config is a whole gateway.yaml. The tags of it and of the sections below are
// the only description of the keys; the loader, the JSON Schema and the table
// in README.md are all made from them:
//
//	yaml      the name of the key
//	default   the value where neither the file nor the environment gives one
//	required  it must be given, unless there is a default; of a list, an element at least
//	empty     an empty text is a value too, as it is of every text that has
//	          no default and is not required
//	format    which texts are accepted, where the Go type doesn't say it
//	enum      the only texts accepted, separated by "|"
//	min, max  bounds, both included
//	doc       what the key means; also the documentation of the field
//
// Sizes are in bytes. Names of files are relative to the directory of
// gateway.yaml in the file, and to the working directory once loaded.
type Config struct {
	Listen          string              `yaml:"listen" format:"address" default:":8080" doc:"where clients connect"`
	ShutdownTimeout time.Duration       `yaml:"shutdown_timeout" default:"30s" min:"1s" max:"1h" doc:"how long requests under way may take to end once the gateway is told to stop"`
	DrainDelay      time.Duration       `yaml:"drain_delay" default:"0s" min:"0s" max:"10m" doc:"how long the gateway, told to stop, is not ready but still accepts connections, so that balancers notice; longer than their checks take"`
	Admin           Admin               `yaml:"admin"`
	TLS             TLS                 `yaml:"tls"`
	TrustedProxies  []netip.Prefix      `yaml:"trusted_proxies" doc:"peers who are believed about their clients: X-Forwarded-For, -Proto and -Host, Forwarded, X-Request-Id and PROXY headers"`
	ForwardAuth     ForwardAuth         `yaml:"forward_auth"`
	ProxyProtocol   string              `yaml:"proxy_protocol" enum:"off|optional|required" default:"off" doc:"whether trusted proxies may or must begin a connection with a PROXY header, version 1 or 2, that tells who is behind them"`
	Log             Log                 `yaml:"log"`
	Telemetry       Telemetry           `yaml:"telemetry"`
	Limits          Limits              `yaml:"limits"`
	HSTS            HSTS                `yaml:"hsts"`
	RateLimits      []RateLimit         `yaml:"rate_limits" doc:"how many requests a caller may make, for routes to name"`
	RateLimitStore  Secret              `yaml:"rate_limit_store" format:"redis" doc:"a Redis server where replicas count together, as redis://… or rediss://…; \"\": each counts by itself"`
	Identity        Identity            `yaml:"identity"`
	Policy          Policy              `yaml:"policy"`
	Upstreams       map[string]Upstream `yaml:"upstreams" doc:"the services behind the gateway, by name"`
	Routes          []Route             `yaml:"routes" doc:"which paths go where; the longest prefix wins"`
}

// Admin is the listener for operators.
type Admin struct {
	Listen string `yaml:"listen" format:"address" default:"127.0.0.1:8081" empty:"true" doc:"where health, metrics and profiles are served, without authentication; \"\" turns it off"`
}

// Log is how the gateway logs, to its standard error.
type Log struct {
	Level  slog.Level `yaml:"level" enum:"debug|info|warn|error" default:"info" doc:"the least severe records written"`
	Format string     `yaml:"format" enum:"json|text" default:"json" doc:"how a record is written"`
}

// Limits bound what one client can take.
type Limits struct {
	HeaderBytes   int64         `yaml:"header_bytes" default:"16KiB" min:"4KiB" max:"1MiB" doc:"size of a request's line and header"`
	Body          int64         `yaml:"body" default:"10MiB" min:"1B" doc:"size of a request's body; the gateway's own endpoints take 64KiB in any case"`
	HeaderTimeout time.Duration `yaml:"header_timeout" default:"10s" min:"100ms" max:"10m" doc:"how long a client may take to send a request's header"`
	IdleTimeout   time.Duration `yaml:"idle_timeout" default:"75s" min:"1s" max:"1h" doc:"how long a connection may stay open between requests"`
	Connections   int           `yaml:"connections" default:"0" min:"0" doc:"open connections of clients, beyond which they are answered 503; 0 is 262144"`

	ConnectionsPerAddress int `yaml:"connections_per_address" default:"0" min:"0" doc:"those of one IPv4 address or IPv6 /64 network, beyond which they are answered 503; trusted proxies are not limited, nor who is behind one that sends no PROXY header; 0 is as many as connections"`
}

// Identity is who may call, and how they prove it.
type Identity struct {
	Prefix       string        `yaml:"prefix" format:"path" default:"/auth" empty:"true" doc:"path of the gateway's own endpoints; \"\" puts them at the root"`
	Store        Store         `yaml:"store" required:"true" doc:"where accounts and sessions are kept: file:PATH or mongodb://…"`
	Registration string        `yaml:"registration" enum:"open|closed" default:"open" doc:"whether strangers may register, or administrators only"`
	DefaultRoles []string      `yaml:"default_roles" format:"role" doc:"roles of a newly registered user"`
	AdminRoles   []string      `yaml:"admin_roles" format:"role" default:"admin" required:"true" doc:"roles whose holders administer users of their own tenant; nobody else gives roles there"`
	SuperRole    string        `yaml:"super_role" format:"role" default:"superadmin" empty:"true" doc:"role whose holders administer the users of every tenant; \"\" is nobody"`
	SessionTTL   time.Duration `yaml:"session_ttl" default:"720h" min:"1m" doc:"how long a session lasts, however often it is refreshed"`
	Password     Password      `yaml:"password"`
	Tokens       Tokens        `yaml:"tokens"`
	Cookies      Cookies       `yaml:"cookies"`
	Issuers      []Issuer      `yaml:"issuers" doc:"others whose tokens are believed"`
	Revocation   Revocation    `yaml:"revocation"`
	LoginLimit   LoginLimit    `yaml:"login_limit"`
	Reset        Reset         `yaml:"reset"`
	Verify       Verify        `yaml:"verify"`
	Mail         Mail          `yaml:"mail"`
	Audit        Audit         `yaml:"audit"`
	CORS         CORS          `yaml:"cors"`
	RateLimits   []string      `yaml:"rate_limits" format:"name" doc:"names of the limits that hold for the gateway's own endpoints, and where no route leads"`
}

// Password is what passwords must be and how they are hashed.
type Password struct {
	Hash      string `yaml:"hash" enum:"bcrypt|argon2id" default:"bcrypt" doc:"algorithm for new hashes; others are replaced at the next login"`
	Cost      int    `yaml:"cost" default:"12" min:"4" max:"16" doc:"cost of bcrypt; each step doubles the time, and above 14 it may be more than a busy machine has"`
	MinLength int    `yaml:"min_length" default:"8" min:"8" max:"64" doc:"characters of a new password"`
	Workers   int    `yaml:"workers" default:"0" min:"0" doc:"passwords hashed at the same time; 0 is half the CPUs, at least one"`
	Queue     int    `yaml:"queue" default:"64" min:"0" doc:"logins that may wait for a worker, 3 s at most; beyond, they are answered 503"`
}

// Tokens is how access and refresh tokens are made.
type Tokens struct {
	Issuer       string        `yaml:"issuer" format:"url" required:"true" doc:"URL of the gateway as clients see it; the iss claim (RFC 7519)"`
	Audience     string        `yaml:"audience" default:"api" doc:"the aud claim of access tokens"`
	Algorithm    string        `yaml:"algorithm" enum:"EdDSA|ES256|RS256|HS256" default:"EdDSA" doc:"algorithm of access tokens (RFC 7518, RFC 8037)"`
	Keys         string        `yaml:"keys" format:"file" default:"data/keys" doc:"directory of the signing keys, made at the first start"`
	AccessTTL    time.Duration `yaml:"access_ttl" default:"15m" min:"1s" max:"24h" doc:"how long an access token is valid"`
	RefreshTTL   time.Duration `yaml:"refresh_ttl" default:"168h" min:"1m" doc:"how long a refresh token is valid"`
	RefreshGrace time.Duration `yaml:"refresh_grace" default:"10s" min:"0s" max:"5m" doc:"how long the refresh token before the current one still gets the current one"`
}

// Revocation is how replicas learn that tokens are to be refused.
type Revocation struct {
	Poll         time.Duration `yaml:"poll" default:"500ms" min:"50ms" max:"1m" doc:"how often the store is asked for revocations made elsewhere"`
	OnStoreLoss  string        `yaml:"on_store_loss" enum:"serve|deny" default:"serve" doc:"what happens to requests when the store has been away for longer than max_staleness"`
	MaxStaleness time.Duration `yaml:"max_staleness" default:"30s" min:"1s" max:"24h" doc:"how old the known revocations may be before on_store_loss applies"`
}

// LoginLimit slows down guessing.
type LoginLimit struct {
	Attempts int           `yaml:"attempts" default:"5" min:"1" doc:"failed logins of an account or an address in a window"`
	Window   time.Duration `yaml:"window" default:"15m" min:"1s" max:"24h" doc:"length of that window"`
}

// Reset is the way back in for those who forgot their password.
type Reset struct {
	TTL  time.Duration `yaml:"ttl" default:"1h" min:"1m" max:"7d" doc:"how long a link to reset a password works"`
	Link string        `yaml:"link" format:"link" required:"true" doc:"the link that is mailed; {token} stands for the token"`
}

// Verify is the proof that an e-mail address belongs to its user.
type Verify struct {
	TTL  time.Duration `yaml:"ttl" default:"24h" min:"1m" max:"30d" doc:"how long a link to verify an address works"`
	Link string        `yaml:"link" format:"link" doc:"the link that is mailed; {token} stands for the token; \"\" mails none, and users cannot change their address"`
}

// Audit is the record of what happened to accounts.
type Audit struct {
	TTL time.Duration `yaml:"ttl" default:"90d" min:"1h" max:"36500d" doc:"how long a record is kept in the store"`
}

// Mail is how mail leaves.
type Mail struct {
	Driver    string `yaml:"driver" enum:"log|smtp" default:"log" doc:"how mail is sent; log writes it to the log, for development"`
	From      string `yaml:"from" format:"mailbox" doc:"sender (RFC 5322); needed by smtp"`
	Templates string `yaml:"templates" format:"file" doc:"directory with templates that replace the built-in ones of the same name; Username is empty where the address is not proved"`
	SMTP      SMTP   `yaml:"smtp"`
}

// SMTP is the server that takes the mail (RFC 5321).
type SMTP struct {
	Host     string `yaml:"host" format:"host" doc:"name or address of the server"`
	Port     int    `yaml:"port" default:"587" min:"1" max:"65535" doc:"port of the server; commonly 465 with implicit TLS"`
	TLS      string `yaml:"tls" enum:"starttls|implicit|none" default:"starttls" doc:"how the connection is protected (RFC 3207, RFC 8314)"`
	Username string `yaml:"username" doc:"account at the server; \"\" sends without one"`
	Password Secret `yaml:"password" doc:"its password"`
}

// Upstream is a service behind the gateway.
type Upstream struct {
	Targets        []*url.URL    `yaml:"targets" required:"true" doc:"its replicas, as scheme, host and port; requests keep the Host that the client sent"`
	OpenAPI        string        `yaml:"openapi" format:"file" doc:"its OpenAPI description, shown beside the gateway's own"`
	Balance        string        `yaml:"balance" enum:"round_robin|least_connections" default:"round_robin" doc:"which replica gets the next request"`
	ConnectTimeout time.Duration `yaml:"connect_timeout" default:"2s" min:"10ms" max:"1m" doc:"how long connecting may take"`
	HeaderTimeout  time.Duration `yaml:"header_timeout" default:"30s" min:"10ms" max:"1h" doc:"how long the header of a response may take; its body is not limited"`
	IdleTimeout    time.Duration `yaml:"idle_timeout" default:"60s" min:"1s" max:"1h" doc:"how long a body may stand still, and an unused connection is kept"`
	BodyTimeout    time.Duration `yaml:"body_timeout" min:"1s" max:"24h" doc:"how long all of a request's body may take, counted from its header; not limited if left out"`
	Headers        string        `yaml:"headers" enum:"portcullis|oauth2-proxy|authelia|kong" default:"portcullis" doc:"names of the header fields that say who is calling; the signed assertion comes with each"`
	TLS            UpstreamTLS   `yaml:"tls"`
	Health         Health        `yaml:"health"`
}

// Health is the active check of an upstream's targets.
type Health struct {
	Path     string        `yaml:"path" format:"path" doc:"what is requested; a 2xx is healthy; \"\" checks nothing"`
	Interval time.Duration `yaml:"interval" default:"5s" min:"100ms" max:"1h" doc:"time between two checks of a target"`
	Timeout  time.Duration `yaml:"timeout" default:"1s" min:"10ms" max:"1m" doc:"how long a check may take"`
}

// Store says where identity keeps its data. Exactly one field is set.
type Store struct {
	File    string // of the embedded store
	MongoDB Secret // connection string, which may hold a password
}

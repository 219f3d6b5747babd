package identity_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	gomail "github.com/wneessen/go-mail"

	"portcullis/identity"
)

func loadTemplates(t *testing.T, dir fs.FS) identity.Templates {
	t.Helper()
	templates, err := identity.LoadTemplates(dir)
	if err != nil {
		t.Fatal(err)
	}
	return templates
}

// smtpMailer is a mailer for s that trusts its certificate.
func smtpMailer(t *testing.T, s *smtpServer, cfg identity.SMTPConfig) *identity.SMTPMailer {
	t.Helper()
	cfg.Host, cfg.Port = "localhost", s.port()
	if cfg.From == "" {
		cfg.From = "Portcullis <noreply@example.com>"
	}
	m, err := identity.NewSMTPMailer(cfg, loadTemplates(t, nil), gomail.WithTLSConfig(&tls.Config{RootCAs: s.roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func resetMail() identity.Mail {
	return identity.Mail{To: "ana@example.com", Template: "reset", Username: "ana", Link: "https://id.example/reset?token=abc_DEF-123&x=1", Valid: time.Hour}
}

func TestSMTP(t *testing.T) {
	for name, c := range map[string]struct {
		server    func(*smtpServer)
		cfg       identity.SMTPConfig
		encrypted bool
		user      string
	}{
		"STARTTLS":                 {func(s *smtpServer) { s.offerTLS = true }, identity.SMTPConfig{TLS: "starttls"}, true, ""},
		"STARTTLS with an account": {func(s *smtpServer) { s.offerTLS, s.user, s.password = true, "gate", "s3cret" }, identity.SMTPConfig{TLS: "starttls", Username: "gate", Password: "s3cret"}, true, "gate"},
		"implicit TLS":             {func(s *smtpServer) { s.implicit = true }, identity.SMTPConfig{TLS: "implicit"}, true, ""},
		"implicit with an account": {func(s *smtpServer) { s.implicit, s.user, s.password = true, "gate", "s3cret" }, identity.SMTPConfig{TLS: "implicit", Username: "gate", Password: "s3cret"}, true, "gate"},
		"no TLS":                   {func(*smtpServer) {}, identity.SMTPConfig{TLS: "none"}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSMTPServer(t, c.server)
			if err := smtpMailer(t, s, c.cfg).Send(context.Background(), resetMail()); err != nil {
				t.Fatal(err)
			}
			got := s.received()
			if len(got) != 1 {
				t.Fatalf("%d mails", len(got))
			}
			m := got[0]
			if m.encrypted != c.encrypted || m.user != c.user || !strings.HasPrefix(m.from, "FROM:<noreply@example.com>") || !strings.HasPrefix(m.to, "TO:<ana@example.com>") {
				t.Errorf("%+v", m)
			}
			msg := m.parse(t)
			if msg.Header.Get("Subject") != "Set a new password" || msg.Header.Get("Date") == "" || msg.Header.Get("Message-Id") == "" {
				t.Errorf("%v", msg.Header)
			}
			text, html := parts(t, msg.Header.Get("Content-Type"), msg.Body)
			if !strings.Contains(text, "https://id.example/reset?token=abc_DEF-123&x=1\r\n") && !strings.Contains(text, "https://id.example/reset?token=abc_DEF-123&x=1\n") {
				t.Errorf("the text:\n%s", text)
			}
			if !strings.Contains(html, `href="https://id.example/reset?token=abc_DEF-123&amp;x=1"`) {
				t.Errorf("the HTML:\n%s", html)
			}
			for _, part := range []string{text, html} {
				if !strings.Contains(part, "ana") || !strings.Contains(part, "1 hour") {
					t.Errorf("%s", part)
				}
			}
		})
	}
}

// parts reads the two alternatives of a message.
func parts(t *testing.T, contentType string, body io.Reader) (text, html string) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("%s, %v", contentType, err)
	}
	r := multipart.NewReader(body, params["boundary"])
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return text, html
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		switch kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type")); kind {
		case "text/plain":
			text = string(content)
		case "text/html":
			html = string(content)
		default:
			t.Errorf("a part of type %s", kind)
		}
	}
}

func TestSMTPFails(t *testing.T) {
	for name, c := range map[string]struct {
		server func(*smtpServer)
		cfg    identity.SMTPConfig
	}{
		"a server without STARTTLS":          {func(*smtpServer) {}, identity.SMTPConfig{TLS: "starttls"}},
		"a wrong password":                   {func(s *smtpServer) { s.offerTLS, s.user, s.password = true, "gate", "right" }, identity.SMTPConfig{TLS: "starttls", Username: "gate", Password: "s3cret-wr0ng"}},
		"an account over a plain connection": {func(s *smtpServer) { s.user, s.password = "gate", "s3cret-wr0ng" }, identity.SMTPConfig{TLS: "none", Username: "gate", Password: "s3cret-wr0ng"}},
		"no account where one is needed":     {func(s *smtpServer) { s.offerTLS, s.user = true, "gate" }, identity.SMTPConfig{TLS: "starttls"}},
		"a mailbox that is full":             {func(s *smtpServer) { s.offerTLS, s.refuse = true, "452 4.2.2 mailbox full" }, identity.SMTPConfig{TLS: "starttls"}},
		"a mailbox that does not exist":      {func(s *smtpServer) { s.offerTLS, s.refuse = true, "550 5.1.1 no such mailbox" }, identity.SMTPConfig{TLS: "starttls"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSMTPServer(t, c.server)
			err := smtpMailer(t, s, c.cfg).Send(context.Background(), resetMail())
			if err == nil {
				t.Fatal("no error")
			}
			for _, secret := range []string{"s3cret-wr0ng", "AGdhdGUAczNjcmV0LXdyMG5n", "abc_DEF"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error quotes %q: %v", secret, err)
				}
			}
			if len(s.received()) != 0 {
				t.Error("a mail was sent all the same")
			}
		})
	}
	t.Run("a certificate that nobody vouches for", func(t *testing.T) {
		s := newSMTPServer(t, func(s *smtpServer) { s.offerTLS = true })
		m, err := identity.NewSMTPMailer(identity.SMTPConfig{Host: "localhost", Port: s.port(), TLS: "starttls", From: "a@example.com"}, loadTemplates(t, nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Send(context.Background(), resetMail()); err == nil {
			t.Error("the certificate was not looked at")
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		m, err := identity.NewSMTPMailer(identity.SMTPConfig{Host: "127.0.0.1", Port: port, TLS: "none", From: "a@example.com"}, loadTemplates(t, nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Send(context.Background(), resetMail()); err == nil {
			t.Error("no error")
		}
	})
}

// A server that says nothing costs no longer than the caller is ready to wait.
func TestSMTPServerThatStalls(t *testing.T) {
	s := newSMTPServer(t, func(s *smtpServer) { s.stall = true })
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := smtpMailer(t, s, identity.SMTPConfig{TLS: "none"}).Send(ctx, resetMail()); err == nil {
		t.Error("no error")
	}
	if took := time.Since(began); took > 10*time.Second { // the library alone would give up after 15
		t.Errorf("took %v", took)
	}
}

func TestSMTPConfigurationsThatCannotWork(t *testing.T) {
	for name, cfg := range map[string]identity.SMTPConfig{
		"no kind of TLS":      {Host: "localhost", Port: 25},
		"unknown kind of TLS": {Host: "localhost", Port: 25, TLS: "maybe"},
		"no host":             {Port: 25, TLS: "none"},
		"no port":             {Host: "localhost", Port: 70000, TLS: "none"},
	} {
		if _, err := identity.NewSMTPMailer(cfg, loadTemplates(t, nil)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAddressees(t *testing.T) {
	s := newSMTPServer(t, func(s *smtpServer) { s.offerTLS = true })
	mailer := smtpMailer(t, s, identity.SMTPConfig{TLS: "starttls"})
	m := resetMail()
	m.To = "ana@bücher.example"
	if err := mailer.Send(context.Background(), m); err != nil {
		t.Fatal(err)
	}
	if got := s.received(); len(got) != 1 || !strings.HasPrefix(got[0].to, "TO:<ana@xn--bcher-kva.example>") {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{"", "ana", "ana@example.com\r\nBcc: eve@example.com", "ana@example.com, eve@example.com"} {
		m.To = bad
		if err := mailer.Send(context.Background(), m); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if got := s.received(); len(got) != 1 {
		t.Errorf("%d mails", len(got))
	}
}

// From the request to the mail server and back: the whole way of a reset.
func TestResetByMail(t *testing.T) {
	w := newWorld(t)
	w.user("ana")
	s := newSMTPServer(t, func(s *smtpServer) { s.offerTLS = true })
	mailer := smtpMailer(t, s, identity.SMTPConfig{TLS: "starttls"})
	w.mail()
	w.must(w.Forgot(w.ctx, "ana@example.com", here))
	for _, m := range w.mail() {
		w.must(mailer.Send(w.ctx, m))
	}
	got := s.received()
	if len(got) != 1 {
		t.Fatalf("%d mails", len(got))
	}
	msg := got[0].parse(t)
	text, _ := parts(t, msg.Header.Get("Content-Type"), msg.Body)
	_, rest, _ := strings.Cut(text, "https://id.example/reset?token=")
	token, _, _ := strings.Cut(rest, "\n")
	w.must(w.Reset(w.ctx, strings.TrimSpace(token), another, here))
}

func TestTemplates(t *testing.T) {
	t.Run("an operator's replace ours", func(t *testing.T) {
		templates := loadTemplates(t, fstest.MapFS{
			"reset.txt":           {Data: []byte("Für {{.Username}}\r\nKlick {{.Link}}\n")},
			"sub/directory/x.txt": {Data: []byte("ignored\n")},
			"README":              {Data: []byte("{{nonsense")},
		})
		var out bytes.Buffer
		mailer := &identity.LogMailer{Templates: templates, Out: &out}
		if err := mailer.Send(context.Background(), resetMail()); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); !strings.Contains(got, "mail to ana@example.com: Für ana\n") || !strings.Contains(got, "Klick https://id.example/reset?token=abc_DEF-123&x=1\n") {
			t.Errorf("%s", got)
		}
		out.Reset()
		m := resetMail()
		m.Template = "password_changed"
		if err := mailer.Send(context.Background(), m); err != nil || !strings.Contains(out.String(), "was changed") {
			t.Errorf("%s, %v", out.String(), err)
		}
	})
	for name, dir := range map[string]fstest.MapFS{
		"syntax":           {"reset.txt": {Data: []byte("Subject\n{{.Username")}},
		"an unknown field": {"reset.html": {Data: []byte("<p>{{.Password}}</p>")}},
		"no subject":       {"verify.txt": {Data: []byte("\n{{.Link}}\n")}},
	} {
		t.Run(name+" is found when they are loaded", func(t *testing.T) {
			if _, err := identity.LoadTemplates(dir); err == nil {
				t.Error("accepted")
			}
		})
	}
	t.Run("HTML is escaped", func(t *testing.T) {
		s := newSMTPServer(t, func(s *smtpServer) { s.offerTLS = true })
		m := resetMail()
		m.Username, m.Link = `<script>alert(1)</script>`, `javascript:alert(1)`
		if err := smtpMailer(t, s, identity.SMTPConfig{TLS: "starttls"}).Send(context.Background(), m); err != nil {
			t.Fatal(err)
		}
		msg := s.received()[0].parse(t)
		if _, html := parts(t, msg.Header.Get("Content-Type"), msg.Body); strings.Contains(html, "<script>") || strings.Contains(html, `href="javascript:`) {
			t.Errorf("%s", html)
		}
	})
}

package identity

import (
	"context"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io"
	"io/fs"
	"strings"
	"sync"
	texttemplate "text/template"
	"time"

	mail "github.com/wneessen/go-mail"
)

// Mail is one message to be written from a template and sent.
type Mail struct {
	To       string
	Template string        // the name of its templates
	Username string        // "" if the address is not proved to be the user's
	Link     string        // with a one-time token; "" for a notice
	Valid    time.Duration // how long the link works
}

// Mailer sends mail. An error means that it should be tried again.
type Mailer interface {
	Send(ctx context.Context, m Mail) error
}

//go:embed mail/*.txt mail/*.html
var embeddedTemplates embed.FS

// Templates writes mails. The first line of a text template is the subject.
type Templates struct {
	text *texttemplate.Template
	html *htmltemplate.Template
}

// LoadTemplates reads the templates: those in dir, where an operator replaced
// some (dir may be nil), and the built-in ones for the rest. Each is tried, so
// that a mistake shows now and not in a mail that cannot be written.
func LoadTemplates(dir fs.FS) (Templates, error) {
	builtin, err := fs.Sub(embeddedTemplates, "mail")
	if err != nil {
		return Templates{}, fmt.Errorf("built-in mail templates: %w", err)
	}
	t := Templates{texttemplate.New("").Option("missingkey=error"), htmltemplate.New("").Option("missingkey=error")}
	for _, source := range []fs.FS{builtin, dir} {
		if source == nil {
			continue
		}
		err := fs.WalkDir(source, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			switch {
			case strings.HasSuffix(path, ".txt"):
				_, err = t.text.ParseFS(source, path)
			case strings.HasSuffix(path, ".html"):
				_, err = t.html.ParseFS(source, path)
			}
			return err
		})
		if err != nil {
			return Templates{}, fmt.Errorf("mail templates: %w", err)
		}
	}
	for _, name := range []string{jobReset, jobVerify, jobPasswordChanged, jobEmailChanged} {
		subject, _, _, err := t.write(Mail{Template: name, Username: "somebody", Link: "https://example.com/", Valid: time.Hour})
		if err == nil && strings.TrimSpace(subject) == "" {
			err = errors.New("the first line, which is the subject, is empty")
		}
		if err != nil {
			return Templates{}, fmt.Errorf("mail template %s: %w", name, err)
		}
	}
	return t, nil
}

// write returns the parts of a message.
func (t Templates) write(m Mail) (subject, text, html string, err error) {
	data := map[string]any{"Username": m.Username, "Link": m.Link, "Valid": humanDuration(m.Valid)}
	var b strings.Builder
	if err := t.text.ExecuteTemplate(&b, m.Template+".txt", data); err != nil {
		return "", "", "", fmt.Errorf("writing a mail: %w", err)
	}
	subject, text, _ = strings.Cut(strings.ReplaceAll(b.String(), "\r\n", "\n"), "\n")
	b.Reset()
	if err := t.html.ExecuteTemplate(&b, m.Template+".html", data); err != nil {
		return "", "", "", fmt.Errorf("writing a mail: %w", err)
	}
	return subject, strings.TrimLeft(text, "\n"), b.String(), nil
}

// humanDuration writes a duration as people say it.
func humanDuration(d time.Duration) string {
	unit, name := time.Minute, "minute"
	if d >= time.Hour && d%time.Hour == 0 {
		unit, name = time.Hour, "hour"
	}
	if n := d / unit; n != 1 {
		return fmt.Sprintf("%d %ss", n, name)
	}
	return "1 " + name
}

// LogMailer shows mails instead of sending them: for trying out. What it writes
// holds working links, so it must not go where logs are kept.
type LogMailer struct {
	Templates Templates
	Out       io.Writer
	mu        sync.Mutex
}

// Send writes the mail's text.
func (l *LogMailer) Send(_ context.Context, m Mail) error {
	subject, text, _, err := l.Templates.write(m)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = fmt.Fprintf(l.Out, "--- mail to %s: %s\n%s---\n", m.To, subject, text)
	return err
}

// SMTPConfig says how mail is handed over (RFC 5321).
type SMTPConfig struct {
	Host     string
	Port     int
	TLS      string // "starttls", "implicit" or "none"
	Username string // "" does not authenticate
	Password string
	From     string
}

// SMTPMailer hands mails to a mail server.
type SMTPMailer struct {
	cfg       SMTPConfig
	templates Templates
	options   []mail.Option
}

// NewSMTPMailer returns a mailer. extra options are appended to those that cfg means.
func NewSMTPMailer(cfg SMTPConfig, templates Templates, extra ...mail.Option) (*SMTPMailer, error) {
	m := &SMTPMailer{cfg: cfg, templates: templates}
	m.options = []mail.Option{mail.WithPort(cfg.Port)}
	switch cfg.TLS {
	case "starttls":
		m.options = append(m.options, mail.WithTLSPolicy(mail.TLSMandatory))
	case "implicit":
		m.options = append(m.options, mail.WithSSL())
	case "none":
		m.options = append(m.options, mail.WithTLSPolicy(mail.NoTLS))
	default:
		return nil, fmt.Errorf("unknown kind of TLS %q", cfg.TLS)
	}
	if cfg.Username != "" {
		m.options = append(m.options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(cfg.Username), mail.WithPassword(cfg.Password))
	}
	m.options = append(m.options, extra...)
	if _, err := m.client(context.Background()); err != nil {
		return nil, err
	}
	return m, nil
}

// smtpWait is how long connecting may take, and handing over after that.
const smtpWait = 15 * time.Second

// client makes a client that waits no longer than ctx, which the library looks
// at only while it connects.
func (s *SMTPMailer) client(ctx context.Context) (*mail.Client, error) {
	wait := smtpWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline))
	}
	c, err := mail.NewClient(s.cfg.Host, append([]mail.Option{mail.WithTimeout(wait)}, s.options...)...)
	if err != nil {
		return nil, fmt.Errorf("configuring SMTP: %w", err)
	}
	return c, nil
}

// Send hands the mail to the server. It has been accepted when Send returns nil.
func (s *SMTPMailer) Send(ctx context.Context, m Mail) error {
	subject, text, html, err := s.templates.write(m)
	if err != nil {
		return err
	}
	msg := mail.NewMsg()
	if err := errors.Join(msg.From(s.cfg.From), msg.To(deliverable(m.To))); err != nil {
		return errors.New("addressing a mail: the address is not accepted") // the cause quotes it
	}
	msg.Subject(subject)
	msg.SetDate()
	msg.SetMessageID()
	msg.SetBodyString(mail.TypeTextPlain, text)
	msg.AddAlternativeString(mail.TypeTextHTML, html)
	c, err := s.client(ctx)
	if err != nil {
		return err
	}
	if err := c.DialAndSendWithContext(ctx, msg); err != nil {
		return fmt.Errorf("sending a mail: %w", err)
	}
	return nil
}

// deliverable writes an address's domain in the form that every mail server
// knows (RFC 5890).
func deliverable(address string) string {
	local, domain, _ := strings.Cut(address, "@")
	ascii, err := domainKey(domain)
	if err != nil {
		return address // for the server to refuse
	}
	return local + "@" + ascii
}

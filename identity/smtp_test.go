package identity_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	"net/mail"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"portcullis/gateway/certs/certstest"
)

// smtpServer is a mail server (RFC 5321, 3207, 4954) that keeps what it accepts.
type smtpServer struct {
	t        *testing.T
	listener net.Listener
	tls      *tls.Config
	roots    *x509.CertPool

	offerTLS bool   // STARTTLS
	implicit bool   // TLS from the first byte
	user     string // "" takes mail from anybody
	password string
	refuse   string // the answer to RCPT, if not ""
	stall    bool   // says nothing at all

	running sync.WaitGroup
	mu      sync.Mutex
	mails   []smtpMail
}

// smtpMail is one message, with how it came.
type smtpMail struct {
	from, to  string
	encrypted bool
	user      string
	data      string
}

// newSMTPServer starts a server on loopback; change sets what it is like.
func newSMTPServer(t *testing.T, change func(*smtpServer)) *smtpServer {
	t.Helper()
	s := &smtpServer{t: t}
	authority := certstest.NewAuthority(t)
	s.tls = &tls.Config{Certificates: []tls.Certificate{authority.Issue("localhost").Certificate}, MinVersion: tls.VersionTLS12}
	s.roots = authority.Pool()
	change(s)
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	stop, cancel := context.WithCancel(context.Background())
	s.running.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.running.Go(func() {
				defer context.AfterFunc(stop, func() { _ = conn.Close() })()
				defer func() { _ = conn.Close() }()
				s.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = s.listener.Close()
		s.running.Wait()
	})
	return s
}

func (s *smtpServer) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

func (s *smtpServer) received() []smtpMail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mails
}

func (s *smtpServer) serve(conn net.Conn) {
	if s.stall {
		_, _ = io.Copy(io.Discard, conn) // until the client gives up
		return
	}
	var m smtpMail
	if s.implicit {
		conn, m.encrypted = tls.Server(conn, s.tls), true
	}
	c := textproto.NewConn(conn)
	say := func(line string) { _ = c.PrintfLine("%s", line) }
	say("220 localhost ESMTP")
	for {
		line, err := c.ReadLine()
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "EHLO", "HELO":
			say("250-localhost")
			if s.offerTLS && !m.encrypted {
				say("250-STARTTLS")
			}
			if s.user != "" && m.encrypted {
				say("250-AUTH PLAIN LOGIN")
			}
			say("250 8BITMIME")
		case "STARTTLS":
			say("220 go ahead")
			conn, m.encrypted = tls.Server(conn, s.tls), true
			c = textproto.NewConn(conn)
		case "AUTH":
			_, initial, _ := strings.Cut(arg, " ")
			credentials, _ := base64.StdEncoding.DecodeString(initial)
			if string(credentials) != "\x00"+s.user+"\x00"+s.password {
				say("535 5.7.8 authentication failed")
				continue
			}
			m.user = s.user
			say("235 2.7.0 welcome")
		case "MAIL":
			if s.user != "" && m.user == "" {
				say("530 5.7.0 authentication required")
				continue
			}
			m.from = arg
			say("250 ok")
		case "RCPT":
			if s.refuse != "" {
				say(s.refuse)
				continue
			}
			m.to = arg
			say("250 ok")
		case "DATA":
			say("354 go ahead")
			data, err := io.ReadAll(c.DotReader())
			if err != nil {
				return
			}
			m.data = string(data)
			s.mu.Lock()
			s.mails = append(s.mails, m)
			s.mu.Unlock()
			say("250 queued")
		case "QUIT":
			say("221 bye")
			return
		case "NOOP", "RSET":
			say("250 ok")
		default:
			say("502 unknown")
		}
	}
}

// parse reads the message as a mail program would.
func (m smtpMail) parse(t *testing.T) *mail.Message {
	t.Helper()
	msg, err := mail.ReadMessage(bufio.NewReader(strings.NewReader(m.data)))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, m.data)
	}
	return msg
}

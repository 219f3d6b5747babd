package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"portcullis/config"
)

// operator asks a running gateway at its admin listener.
type operator struct {
	base   string
	client http.Client
}

// newOperator finds the listener where the configuration says, or at the address.
func newOperator(cfg *config.Config, address string) (*operator, error) {
	if address == "" {
		if cfg.Admin.Listen == "" {
			return nil, errors.New("the gateway does not listen for operators: admin.listen is empty")
		}
		host, port, err := net.SplitHostPort(cfg.Admin.Listen)
		if err != nil {
			return nil, err
		}
		if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		address = "http://" + net.JoinHostPort(host, port)
	}
	return &operator{strings.TrimSuffix(address, "/"), http.Client{Timeout: 10 * time.Second}}, nil
}

func (o *operator) get(ctx context.Context, path string, into any) error {
	return o.ask(ctx, http.MethodGet, path, nil, into)
}

func (o *operator) post(ctx context.Context, path string, v, into any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return o.ask(ctx, http.MethodPost, path, body, into)
}

// maxAnswer bounds what a command reads of an answer.
const maxAnswer = 256 << 20

func (o *operator) ask(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, o.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := o.client.Do(req)
	if err != nil {
		return fmt.Errorf("asking the running gateway: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("asking the running gateway: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var refused struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(answer, &refused) != nil || refused.Error == "" {
			refused.Error = "no answer to that"
		}
		return fmt.Errorf("the running gateway says %d to %s: %s", res.StatusCode, path, refused.Error)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("the running gateway answers to %s what is not understood: %w", path, err)
	}
	return nil
}

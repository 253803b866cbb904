package autotls

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/plexus-p2p/plexus/exchange/p2phttp/peerauth"
)

const (
	brokerPath    = "/v1/_acme-challenge"
	brokerTimeout = 2 * time.Minute // in which it dials us
	maxBody       = 1 << 20         // bytes of an answer, of authority or broker
	maxReason     = 512             // bytes of it that an error repeats
)

// BrokerError is what a broker answers that does not do its part. It wraps [ErrBroker].
type BrokerError struct {
	Status     int    // of HTTP
	Reason     string // its own words
	RetryAfter time.Duration
}

func (e *BrokerError) Error() string {
	return fmt.Sprintf("%v: %d %s: %q", ErrBroker, e.Status, http.StatusText(e.Status), e.Reason)
}

// Unwrap returns ErrBroker.
func (e *BrokerError) Unwrap() error { return ErrBroker }

// clients makes the HTTP clients.
func (c *Client) clients() {
	if c.cfg.HTTPClient != nil {
		c.http = *c.cfg.HTTPClient
	}
	c.http.Transport = bounded{c.http.Transport}
	c.auth = c.http
	c.auth.Transport = &peerauth.Transport{Key: c.cfg.Key, Base: c.http.Transport}
}

// bounded bounds answers. x/crypto/acme reads them as long as they are.
type bounded struct{ base http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	base := b.base
	if base == nil {
		base = http.DefaultTransport
	}
	resp, err := base.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxBody), resp.Body}
	}
	return resp, err
}

// register asks the broker to have a value in the DNS, at _acme-challenge.<base>. It
// dials the addresses first. What the spec says of the authentication has an error: what it
// calls challenge-node is challenge-client, on which peerauth's spec and the brokers agree.
//
// "Node sends a POST request to /v1/_acme-challenge endpoint using payload as HTTP body
// and headers as HTTP headers."
// https://github.com/libp2p/specs/blob/master/tls/autotls-client.md#sending-challenge-to-autotls-broker
func (c *Client) register(ctx context.Context, value string, addrs []string) error {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	body, err := json.Marshal(struct {
		Value     string   `json:"value"`
		Addresses []string `json:"addresses"`
	}{value, addrs})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.cfg.Broker, "/")+brokerPath, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBroker, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	resp, err := c.auth.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBroker, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	reason, _ := io.ReadAll(io.LimitReader(resp.Body, maxReason))
	return &BrokerError{
		Status: resp.StatusCode, Reason: strings.TrimSpace(string(reason)),
		RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After")),
	}
}

// parseRetryAfter reads a number of seconds, or a date. 0: neither, or over.
// https://www.rfc-editor.org/rfc/rfc9110#name-retry-after
func parseRetryAfter(v string) time.Duration {
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		n = min(max(n, 0), int64(maxRefused/time.Second))
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(time.Until(t), 0), maxRefused)
	}
	return 0
}

// retryAfter is how long a server tells to wait, by an error; 0: it does not.
func retryAfter(err error) time.Duration {
	if be, ok := errors.AsType[*BrokerError](err); ok {
		return be.RetryAfter
	}
	if se, ok := errors.AsType[*peerauth.StatusError](err); ok {
		return parseRetryAfter(se.Header.Get("Retry-After"))
	}
	if ae, ok := errors.AsType[*acme.Error](err); ok && ae.Header != nil {
		return parseRetryAfter(ae.Header.Get("Retry-After"))
	}
	return 0
}

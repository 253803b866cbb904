package autotls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/acme"
)

// How long things may take.
//
// "dns_poll_interval 1 second, dns_timeout 3 minutes, acme_poll_interval 1 second,
// acme_timeout 3 minutes".
// https://github.com/libp2p/specs/blob/master/tls/autotls-client.md#parameters
const (
	minLookup    = time.Second // between lookups
	maxLookup    = time.Minute
	dnsTimeout   = 3 * time.Minute
	acmeTimeout  = 3 * time.Minute  // for each status that the authority has to change
	issueTimeout = 15 * time.Minute // for all of it

	maxAuthz  = 4                // authorizations of an order; there is one
	maxRetry  = 4                // times that a request to the authority is repeated
	maxHurry  = time.Minute      // that it may tell to wait before; otherwise all begins anew
	hurryBase = 1 * time.Second  // the first wait, if it does not tell
	hurryMax  = 10 * time.Second // the longest
	noHurry   = 10 * time.Millisecond
)

// issue gets a new certificate, and keeps it.
func (c *Client) issue(ctx context.Context, addrs []string) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	account, err := c.account()
	if err != nil {
		return nil, err
	}
	a := &acme.Client{
		Key: account, DirectoryURL: c.cfg.Directory, HTTPClient: &c.http,
		UserAgent: c.cfg.UserAgent, RetryBackoff: retry,
	}
	order, err := c.order(ctx, a)
	if err != nil {
		return nil, err
	}
	if len(order.AuthzURLs) > maxAuthz {
		return nil, fmt.Errorf("%w: %d authorizations for one name", ErrAuthority, len(order.AuthzURLs))
	}
	for _, url := range order.AuthzURLs {
		if err := c.authorize(ctx, a, url, addrs); err != nil {
			return nil, err
		}
	}
	cert, err := c.finalize(ctx, a, order)
	if err != nil {
		return nil, err
	}
	return cert, c.save(cert)
}

// retry is how long to wait before a request to the authority is repeated; 0: no more.
func retry(n int, _ *http.Request, resp *http.Response) time.Duration {
	if resp != nil && resp.StatusCode == http.StatusBadRequest && n <= maxRetry {
		return noHurry // a nonce that is too old; the answer has a new one
	}
	wait := min(hurryBase<<max(n-1, 0), hurryMax)
	if resp != nil {
		wait = max(wait, parseRetryAfter(resp.Header.Get("Retry-After")))
	}
	if n > maxRetry || wait > maxHurry {
		return 0
	}
	return wait
}

func refused(what string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrAuthority, what, err)
}

// order registers, and orders the certificate.
func (c *Client) order(ctx context.Context, a *acme.Client) (*acme.Order, error) {
	var contact []string
	if c.cfg.Contact != "" {
		contact = []string{"mailto:" + c.cfg.Contact}
	}
	_, err := a.Register(ctx, &acme.Account{Contact: contact}, acme.AcceptTOS)
	if err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil, refused("register", err)
	}
	order, err := a.AuthorizeOrder(ctx, acme.DomainIDs(c.Name()))
	if err != nil {
		return nil, refused("order "+c.Name(), err)
	}
	return order, nil
}

// authorize proves that we may have the name, with the help of the broker.
func (c *Client) authorize(ctx context.Context, a *acme.Client, url string, addrs []string) error {
	z, err := a.GetAuthorization(ctx, url)
	if err != nil {
		return refused("authorization", err)
	}
	if z.Status == acme.StatusValid {
		return nil // of an order shortly before
	}
	i := slices.IndexFunc(z.Challenges, func(ch *acme.Challenge) bool { return ch.Type == "dns-01" })
	if z.Status != acme.StatusPending || i < 0 {
		return fmt.Errorf("%w: authorization: it is %s, with %d challenges, none of them dns-01", ErrAuthority, z.Status, len(z.Challenges))
	}
	value, err := a.DNS01ChallengeRecord(z.Challenges[i].Token)
	if err != nil {
		return refused("challenge", err)
	}
	if err := c.register(ctx, value, addrs); err != nil {
		return err
	}
	if err := c.lookup(ctx, value); err != nil {
		return err
	}
	if _, err := a.Accept(ctx, z.Challenges[i]); err != nil {
		return refused("challenge", err)
	}
	ctx, cancel := context.WithTimeout(ctx, acmeTimeout)
	defer cancel()
	if _, err := a.WaitAuthorization(ctx, url); err != nil {
		return refused("authorization", err)
	}
	return nil
}

// lookup waits until the DNS tells a value.
//
// "Node SHOULD query DNS records […] until they are set by the AutoTLS broker using
// exponential backoff […] The node SHOULD NOT poll DNS for longer than dns_timeout."
// https://github.com/libp2p/specs/blob/master/tls/autotls-client.md#signalling-challenge-completion-to-acme-server
func (c *Client) lookup(ctx context.Context, value string) error {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	name := "_acme-challenge." + c.base
	for wait := minLookup; ; wait = min(2*wait, maxLookup) {
		texts, err := c.cfg.LookupTXT(ctx, name)
		if slices.Contains(texts, value) {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if err == nil {
				err = fmt.Errorf("%d other values", len(texts))
			}
			return fmt.Errorf("%w: TXT %s: %w", ErrDNS, name, err)
		}
	}
}

// finalize has the certificate made.
func (c *Client) finalize(ctx context.Context, a *acme.Client, order *acme.Order) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, acmeTimeout)
	defer cancel()
	order, err := a.WaitOrder(ctx, order.URI)
	if err != nil {
		return nil, refused("order "+c.Name(), err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{c.Name()}}, key)
	if err != nil {
		return nil, err
	}
	chain, _, err := a.CreateCertFromOrder(ctx, order, csr, true)
	if err != nil {
		return nil, refused("certificate", err)
	}
	cert := &tls.Certificate{Certificate: chain, PrivateKey: key}
	if cert.Leaf, err = x509.ParseCertificate(chain[0]); err != nil {
		return nil, refused("certificate", err)
	}
	if err := c.check(cert.Leaf, &key.PublicKey); err != nil {
		return nil, refused("certificate", err)
	}
	return cert, nil
}

// check tells whether a certificate is of use.
func (c *Client) check(leaf *x509.Certificate, key *ecdsa.PublicKey) error {
	if !key.Equal(leaf.PublicKey) {
		return errors.New("it is for another key")
	}
	if err := leaf.VerifyHostname("0-0-0-0." + c.base); err != nil {
		return err
	}
	if !time.Now().Before(leaf.NotAfter) {
		return fmt.Errorf("it has expired at %v", leaf.NotAfter)
	}
	return nil
}

// Package autotls gets a node a certificate that browsers trust, though it has no domain
// name of its own: *.<peer ID>.libp2p.direct, by ACME, with the help of a broker
// that owns libp2p.direct. Browsers then connect by WebSocket over TLS:
//
//	/ip4/1.2.3.4/tcp/4001/tls/sni/1-2-3-4.<peer ID>.libp2p.direct/ws
//
// The DNS of the broker answers 1-2-3-4.<peer ID>.libp2p.direct with 1.2.3.4, and holds
// for a while what the node proves to the certificate authority (DNS-01).
//
//	c, err := autotls.New(autotls.Config{Key: key, Dir: dir, Addrs: func() []ma.Multiaddr { return h.Addrs() }})
//	ws := &websocket.Transport{TLSConfig: &tls.Config{GetCertificate: c.GetCertificate}}
//	… // a host h with ws, listening on /ip4/0.0.0.0/tcp/4001/tls/ws too
//	h.Announce(c.Addrs)
//	go c.Run(ctx)
//
// [Client.Run] agrees to the terms of service of the certificate authority: Let's
// Encrypt, unless Config says otherwise.
//
// The files in the order in which things happen:
//
//	autotls.go  when a certificate is wanted
//	issue.go    1  how to get one: the certificate authority and DNS
//	broker.go   2  the broker
//	store.go    3  where it is kept
//	addr.go     the names, and the addresses to tell others
//
// The ACME client is golang.org/x/crypto/acme. It adds 0.3 MB to a program with an HTTP client, and
// nothing that this module does not have; certmagic v0.25 adds 3.3 MB and 13 more
// modules, for what is of no use here: other challenges, stores, DNS servers.
//
// Spec: https://github.com/libp2p/specs/blob/master/tls/autotls-client.md,
// https://www.rfc-editor.org/rfc/rfc8555
//
// # Limits
//
// The broker's health is not asked for beforehand, as p2p-forge's client does; attempts
// get rarer instead. The authority is not asked when to renew (RFC 9773). Addresses are told
// as above, not in the shorter form /dns4/…/tcp/…/tls/ws, which means the same.
// A node must be reachable otherwise than by this certificate, because the broker
// wants to reach it before there is one.
package autotls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
)

// The defaults of [Config].
const (
	LetsEncrypt   = "https://acme-v02.api.letsencrypt.org/directory"
	DefaultBroker = "https://registration.libp2p.direct"
	DefaultDomain = "libp2p.direct"
)

// When what is tried.
const (
	minPoll    = 5 * time.Second // for a public address
	maxPoll    = time.Minute
	minBackoff = 5 * time.Minute // Let's Encrypt allows five failures an hour
	maxBackoff = 4 * time.Hour
	maxRefused = 24 * time.Hour // of what a server tells to wait
	maxSleep   = time.Hour      // a sleeping machine's timers stand still, its clock does not
)

var (
	// ErrNotReady means that there is no certificate, or that it has expired.
	ErrNotReady = errors.New("autotls: no certificate yet")

	// ErrBroker means that the broker did not do its part. The error is a [BrokerError] if
	// it answered.
	ErrBroker = errors.New("autotls: broker")

	// ErrDNS means that what the broker has agreed to tell did not appear in the DNS.
	ErrDNS = errors.New("autotls: the challenge does not appear in the DNS")

	// ErrAuthority means that the certificate authority did not give a
	// certificate that is of use. What it said is wrapped: an *acme.Error, say.
	ErrAuthority = errors.New("autotls: certificate authority")
)

// Config says whose certificate, and where from. Key and Addrs are required.
type Config struct {
	// Key is the identity of the node, which the certificate's name is made of.
	Key peer.PrivKey

	// Addrs are the node's addresses as known so far; those that are not public are left
	// out. Nothing is asked for before there is one, because the broker dials the
	// node. It is called now and then, by Run.
	Addrs func() []ma.Multiaddr

	// Dir is the directory where certificate and account are kept, for the next
	// run; it is made if it does not exist. Empty: nowhere, which is for tests:
	// authorities limit how many certificates they give.
	Dir string

	// Directory is the URL of the certificate authority's directory. Empty: LetsEncrypt.
	Directory string

	// Contact is an e-mail address that the authority may write to. Empty: none.
	Contact string

	// Broker is the https URL of the broker, and Domain what it owns. Empty: that of
	// libp2p.direct.
	Broker, Domain string

	// HTTPClient talks to authority and broker. Nil: http.DefaultClient.
	HTTPClient *http.Client

	// LookupTXT looks whether the broker has done its part. Nil: as net.DefaultResolver.
	LookupTXT func(ctx context.Context, name string) ([]string, error)

	// UserAgent is told to authority and broker. Empty: "plexus".
	UserAgent string

	// AllowPrivate takes addresses that are not public as if they were. It is for
	// tests, and for authorities and brokers of one's own.
	AllowPrivate bool

	// Notify, where set, is called by Run when what [Client.Addrs] returns changes:
	// there is a certificate, a new one, or (nil) none any more. A host tells
	// others after h.Announce(c.Addrs), so call that.
	Notify func(*x509.Certificate)

	// Logger hears, at Info, of certificates and of waiting for an address, and at
	// Warn, of failures. Nil: slog.Default.
	Logger *slog.Logger
}

// Client keeps a certificate fresh. All its methods may be called concurrently.
type Client struct {
	// Fixed after New.
	cfg  Config
	base string // <peer ID>.<domain>
	http http.Client
	auth http.Client // that authenticates, for the broker
	log  *slog.Logger

	running atomic.Bool
	cert    atomic.Pointer[tls.Certificate] // with Leaf
	ready   chan struct{}
	once    sync.Once // closes ready

	told *tls.Certificate // owned by Run: what Notify was called with
}

// New makes a client and reads what an earlier one has kept in Config.Dir. It fails if that
// cannot be read; an error over [peer.ErrExposed] means that others can, too.
// What is malformed or has expired is as good as nothing.
func New(cfg Config) (*Client, error) {
	if cfg.Key.IsZero() || cfg.Addrs == nil {
		return nil, errors.New("autotls: Config.Key and Config.Addrs are required")
	}
	if cfg.Domain == "" {
		cfg.Domain = DefaultDomain
	}
	if cfg.Broker == "" {
		if cfg.Domain != DefaultDomain {
			return nil, fmt.Errorf("autotls: Config.Broker is empty: who is the broker of %s?", cfg.Domain)
		}
		cfg.Broker = DefaultBroker
	}
	if cfg.Directory == "" {
		cfg.Directory = LetsEncrypt
	}
	for _, s := range []string{cfg.Broker, cfg.Directory} {
		if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("autotls: %q is not an https URL", s)
		}
	}
	if cfg.LookupTXT == nil {
		cfg.LookupTXT = net.DefaultResolver.LookupTXT
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "plexus"
	}
	c := &Client{
		cfg:   cfg,
		base:  Label(cfg.Key.ID()) + "." + strings.ToLower(cfg.Domain),
		log:   cfg.Logger,
		ready: make(chan struct{}),
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	c.clients()
	cert, err := c.load()
	if err != nil {
		return nil, err
	}
	if cert != nil && time.Now().Before(cert.Leaf.NotAfter) {
		c.put(cert)
	}
	return c, nil
}

// Name is the name in the certificate: *.<peer ID>.<domain>.
func (c *Client) Name() string { return "*." + c.base }

// Ready is closed when there is a certificate for the first time.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// GetCertificate is for tls.Config: it has the certificate for those who ask for a name
// in it, and none for others, so that they get what else is in tls.Config. The
// error is [ErrNotReady]. It does not block.
func (c *Client) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if _, parent, ok := strings.Cut(hello.ServerName, "."); !ok || !strings.EqualFold(parent, c.base) {
		return nil, nil
	}
	if cert := c.valid(); cert != nil {
		return cert, nil
	}
	return nil, ErrNotReady
}

// valid is the certificate, if there is one that has not expired.
func (c *Client) valid() *tls.Certificate {
	if cert := c.cert.Load(); cert != nil && time.Now().Before(cert.Leaf.NotAfter) {
		return cert
	}
	return nil
}

func (c *Client) put(cert *tls.Certificate) {
	c.cert.Store(cert)
	c.once.Do(func() { close(c.ready) })
}

// Run gets a certificate as soon as the node has a public address, and renews it
// when two thirds of its life are over, until ctx ends. What fails is tried again
// after 5 minutes, then twice as long each time, up to 4 hours, or when authority or
// broker tell to, within a day. It returns why ctx ended. It must not run twice at a time.
func (c *Client) Run(ctx context.Context) error {
	if c.running.Swap(true) {
		return errors.New("autotls: Run runs already")
	}
	defer c.running.Store(false)
	var (
		poll    = minPoll
		backoff = minBackoff
		waiting bool      // for an address
		renew   time.Time // when to renew the certificate
	)
	if cert := c.valid(); cert != nil {
		renew = renewal(cert.Leaf)
	}
	for {
		if err := c.sleep(ctx, renew); err != nil {
			return err
		}
		addrs := c.dialable(c.cfg.Addrs())
		if len(addrs) == 0 {
			if !waiting {
				c.log.Info("autotls: waiting for a public address", "name", c.Name())
			}
			waiting = true
			renew = time.Now().Add(poll)
			poll = min(2*poll, maxPoll)
			continue
		}
		poll, waiting = minPoll, false
		cert, err := c.issue(ctx, addrs)
		switch {
		case err == nil:
			c.put(cert)
			// Not at once, whatever the authority thinks that a life is.
			backoff, renew = minBackoff, renewal(cert.Leaf)
			if soon := time.Now().Add(minBackoff); renew.Before(soon) {
				renew = soon
			}
			c.log.Info("autotls: new certificate", "name", c.Name(), "expires", cert.Leaf.NotAfter, "renew", renew)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		default:
			wait := max(time.Duration(float64(backoff)*(0.75+rand.Float64()/2)), retryAfter(err))
			backoff, renew = min(2*backoff, maxBackoff), time.Now().Add(wait)
			c.log.Warn("autotls: no new certificate", "name", c.Name(), "retry", renew, "err", err)
		}
	}
}

// renewal is when to renew a certificate: after two thirds of its life and up to a
// thirtieth more, so that nodes that were started together do not come together again.
func renewal(leaf *x509.Certificate) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(life*2/3 + rand.N(life/30+1))
}

// sleep waits until the clock shows t, and meanwhile tells of changes. The error
// is why ctx ended.
func (c *Client) sleep(ctx context.Context, t time.Time) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		cert := c.valid()
		if cert != c.told {
			c.told = cert
			if f := c.cfg.Notify; f != nil && cert != nil {
				f(cert.Leaf)
			} else if f != nil {
				f(nil)
			}
		}
		now := time.Now().Round(0) // the clock's time
		wait := min(t.Round(0).Sub(now), maxSleep)
		if wait <= 0 {
			return nil
		}
		if cert != nil {
			wait = min(wait, cert.Leaf.NotAfter.Sub(now))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

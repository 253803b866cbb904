package autotls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/crypto/acme"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/ping"
	"github.com/plexus-p2p/plexus/transport/websocket"
)

// run runs a client until the test ends.
func run(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	end := errors.New("the end")
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel(end)
		if err := <-done; !errors.Is(err, end) && !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v, want %v", err, end)
		}
	})
	return c
}

// steps are the calls of one certificate, in order.
var steps = []string{
	"acme /directory",
	"acme /account",
	"acme /order",
	"acme /authz",
	"broker POST /v1/_acme-challenge", // the challenges
	"broker POST /v1/_acme-challenge",
	"broker dials /ip4/1.2.3.4/tcp/4001",
	"acme /challenge",
	"acme /authz", // not yet
	"acme /authz",
	"acme /order/1",
	"acme /finalize",
	"acme /order/1",
	"acme /cert",
}

// TestBrowser: from nothing to a connection as browsers make it: by a name that the DNS
// has, to a certificate that the authority has signed.
func TestBrowser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cfg := w.config()
		var (
			y *plexus.Host
			c *Client
		)
		cfg.Addrs = func() []ma.Multiaddr { return y.Addrs() }
		cfg.Notify = func(*x509.Certificate) { y.Announce(c.Addrs) }
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ws := &websocket.Transport{TLSConfig: &tls.Config{GetCertificate: c.GetCertificate}}
		y = newHost(t, w.site, w.node, ws, "/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/tcp/4001/tls/ws")
		changed := 0
		y.Notify(func(ev plexus.Event) {
			if _, ok := ev.(plexus.AddrsChanged); ok {
				changed++
			}
		})
		y.Announce(c.Addrs)
		if got := fmt.Sprint(y.Addrs()); got != "[/ip4/1.2.3.4/tcp/4001 /ip4/10.0.0.4/tcp/4001]" {
			t.Errorf("before: %s", got)
		}
		changed = 0
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		<-c.Ready()
		synctest.Wait()
		if changed != 1 {
			t.Errorf("the host told %d times that its addresses have changed, want 1", changed)
		}
		if calls, _ := w.took(); !slices.Equal(calls, steps) {
			t.Errorf("the calls were\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(steps, "\n"))
		}

		name := "1-2-3-4." + Label(y.ID()) + ".libp2p.direct"
		want := "/ip4/1.2.3.4/tcp/4001/tls/sni/" + name + "/ws"
		if got := fmt.Sprint(y.Addrs()); got != "[/ip4/1.2.3.4/tcp/4001 /ip4/10.0.0.4/tcp/4001 "+want+"]" {
			t.Errorf("after: %s, want %s in it", got, want)
		}
		roots := x509.NewCertPool()
		roots.AddCert(w.root)
		far := w.net.Host("9.9.9.9")
		for _, a := range []string{want, "/dns4/" + name + "/tcp/4001/tls/ws"} {
			x := newHost(t, far, newKey(t), &websocket.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}})
			conn, err := x.Dial(t.Context(), peer.AddrInfo{ID: y.ID(), Addrs: []ma.Multiaddr{ma.StringCast(a)}})
			if err != nil {
				t.Fatal(err)
			}
			if got := conn.RemoteAddr().String(); !strings.HasPrefix(got, want) {
				t.Errorf("connected to %s, want %s", got, want)
			}
			for _, err := range ping.Over(t.Context(), conn) {
				if err != nil {
					t.Error(err)
				}
				break
			}
			x.Close()
		}
		if err := c.Run(ctx); err == nil {
			t.Error("it runs twice")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		y.Close()
		w.broker.Close()
	})
}

// inWorld runs f in a world with a node that can be dialed.
func inWorld(t *testing.T, f func(t *testing.T, w *world, cfg Config)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		newHost(t, w.site, w.node, nil, "/ip4/1.2.3.4/tcp/4001")
		f(t, w, w.config())
	})
}

// TestRestart: certificate and account are there after a restart.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(t *testing.T, w *world, cfg Config) {
		cfg.Dir = filepath.Join(dir, "autotls")
		first, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go first.Run(ctx)
		<-first.Ready()
		cancel()
		synctest.Wait()
		w.took()
		for path, want := range map[string]os.FileMode{
			"": 0o700 | os.ModeDir, "acme.test_directory": 0o700 | os.ModeDir, "acme.test_directory/account.pem": 0o600,
			"acme.test_directory/" + Label(w.node.ID()) + ".libp2p.direct.pem": 0o600,
		} {
			if info, err := os.Stat(filepath.Join(cfg.Dir, path)); err != nil || info.Mode() != want {
				t.Errorf("%q: %v, %v; want %v", path, info.Mode(), err, want)
			}
		}

		told := make(chan *x509.Certificate, 1)
		cfg.Notify = func(leaf *x509.Certificate) { told <- leaf }
		cfg.Addrs = func() []ma.Multiaddr { return nil }
		second := run(t, cfg)
		<-second.Ready()
		if leaf := <-told; !leaf.Equal(first.valid().Leaf) {
			t.Error("another certificate than before")
		}
		time.Sleep(50 * 24 * time.Hour)
		synctest.Wait()
		if calls, _ := w.took(); len(calls) != 0 {
			t.Errorf("calls after a restart: %q", calls)
		}

		// The next certificate is ordered by the same account.
		cfg.Notify, cfg.Addrs = nil, w.config().Addrs
		third := run(t, cfg)
		time.Sleep(14 * 24 * time.Hour)
		synctest.Wait()
		if calls, _ := w.took(); len(calls) == 0 || third.valid().Leaf.Equal(first.cert.Load().Leaf) {
			t.Errorf("no new certificate after 64 days: %q", calls)
		}
		if len(w.accounts) != 1 {
			t.Errorf("%d accounts, want 1", len(w.accounts))
		}

		// Another authority does not know of it.
		cfg.Directory = "https://other.test/directory"
		other, err := New(cfg)
		if err != nil || other.valid() != nil {
			t.Errorf("at another authority: %v, %v; want nothing", other.valid(), err)
		}
	})
}

// TestKeptExpired: a certificate that expired while nobody was there is replaced.
func TestKeptExpired(t *testing.T) {
	dir := t.TempDir()
	inWorld(t, func(t *testing.T, w *world, cfg Config) {
		cfg.Dir = dir
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.issue(t.Context(), c.dialable(cfg.Addrs())); err != nil {
			t.Fatal(err)
		}
		time.Sleep(91 * 24 * time.Hour)
		if c, err = New(cfg); err != nil || c.valid() != nil {
			t.Errorf("%v, %v; want nothing", c.valid(), err)
		}
		c = run(t, cfg)
		<-c.Ready()
	})
}

// TestRenewal: a certificate is replaced after two thirds of its life, and a bit.
func TestRenewal(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, cfg Config) {
		var told []time.Time
		cfg.Notify = func(leaf *x509.Certificate) {
			if leaf == nil {
				t.Error("there is no certificate")
			}
			told = append(told, time.Now())
		}
		c := run(t, cfg)
		<-c.Ready()
		time.Sleep(2 * 365 * 24 * time.Hour)
		synctest.Wait()
		if len(told) < 11 || len(told) > 13 {
			t.Errorf("%d certificates in two years, want 730 / 60…63 days", len(told))
		}
		same := true
		for i := 1; i < len(told); i++ {
			gap := told[i].Sub(told[i-1])
			if gap < 60*24*time.Hour || gap > 63*24*time.Hour+time.Minute {
				t.Errorf("certificate %d after %v", i+1, gap)
			}
			same = same && gap.Round(time.Minute) == told[1].Sub(told[0]).Round(time.Minute)
		}
		if same {
			t.Error("no jitter")
		}
	})
}

// TestShortLife: an authority whose certificates are old at once is not asked all the time.
func TestShortLife(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, cfg Config) {
		w.life = time.Minute
		c := run(t, cfg)
		<-c.Ready()
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.orders < 10 || w.orders > 13 {
			t.Errorf("%d orders in an hour, want one in %v", w.orders, minBackoff)
		}
	})
}

// TestBackoff: what fails is tried again, more and more rarely, and the certificate there is
// is used until it expires.
func TestBackoff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, cfg Config) {
		var (
			told []bool
			last time.Time
		)
		cfg.Notify = func(leaf *x509.Certificate) { told, last = append(told, leaf != nil), time.Now() }
		c := run(t, cfg)
		<-c.Ready()
		w.mu.Lock()
		w.fail = func(call string, rw http.ResponseWriter) bool {
			if strings.HasPrefix(call, "broker") {
				rw.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
			return false
		}
		w.mu.Unlock()
		w.took()
		start := time.Now()
		time.Sleep(89 * 24 * time.Hour)
		synctest.Wait()
		hello := &tls.ClientHelloInfo{ServerName: "1-2-3-4." + c.base}
		if cert, err := c.GetCertificate(hello); cert == nil || err != nil {
			t.Errorf("before it expires: %v, %v", cert, err)
		}
		time.Sleep(2 * 24 * time.Hour)
		synctest.Wait()
		if cert, err := c.GetCertificate(hello); cert != nil || !errors.Is(err, ErrNotReady) {
			t.Errorf("after it has expired: %v, %v; want ErrNotReady", cert, err)
		}
		if got := c.Addrs([]ma.Multiaddr{ma.StringCast("/ip4/1.2.3.4/tcp/1/wss")}); len(got) != 0 {
			t.Errorf("after it has expired: %v", got)
		}
		var at []time.Time
		calls, times := w.took()
		for i, call := range calls {
			if call == "acme /order" {
				at = append(at, times[i])
			}
		}
		if got := at[0].Sub(start); got < 60*24*time.Hour || got > 64*24*time.Hour {
			t.Errorf("first attempt after %v", got)
		}
		for i, want := 1, minBackoff; i < len(at); i++ {
			if gap := at[i].Sub(at[i-1]); gap < want*3/4 || gap > want*5/4+time.Minute {
				t.Errorf("attempt %d after another %v, want about %v", i+1, gap, want)
			}
			want = min(2*want, maxBackoff)
		}
		if n := len(at); n < 28*24/5 || n > 31*24/3+7 {
			t.Errorf("%d attempts in a month, want one in about %v", n, maxBackoff)
		}
		if !slices.Equal(told, []bool{true, false}) {
			t.Errorf("told %v, want that there is one, and then none", told)
		}
		if end := c.cert.Load().Leaf.NotAfter; !last.Equal(end) {
			t.Errorf("told at %v that it has expired at %v", last, end)
		}

		w.mu.Lock()
		w.fail = nil
		w.mu.Unlock()
		time.Sleep(maxBackoff * 5 / 4)
		synctest.Wait()
		if !slices.Equal(told, []bool{true, false, true}) || c.valid() == nil {
			t.Errorf("told %v, want that there is one again", told)
		}
	})
}

// TestRetryAfter: what authority or broker tell to wait is waited, within bounds.
func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		call, header string
		want         time.Duration
	}{
		{"broker POST /v1/_acme-challenge", "7200", 2 * time.Hour},
		{"broker POST /v1/_acme-challenge", "999999999999", maxRefused},
		{"broker POST /v1/_acme-challenge", "-5", minBackoff},
		{"broker POST /v1/_acme-challenge", "soon", minBackoff},
		{"acme /order", "10800", 3 * time.Hour},
		{"acme /order", "Sat, 01 Jan 2000 05:00:00 GMT", 5 * time.Hour},
		{"acme /order", "Fri, 31 Dec 2100 05:00:00 GMT", maxRefused},
	} {
		t.Run(tt.call+" "+tt.header, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, cfg Config) {
				n := 0
				w.fail = func(call string, rw http.ResponseWriter) bool {
					if call != tt.call || n > 0 && !strings.HasPrefix(call, "acme") {
						return false
					}
					if n++; strings.HasPrefix(call, "acme") && n > 1 {
						return false
					}
					rw.Header().Set("Retry-After", tt.header)
					return problem(rw, http.StatusTooManyRequests, "rateLimited")
				}
				start := time.Now()
				c := run(t, cfg)
				<-c.Ready()
				_, times := w.took()
				var gap time.Duration
				for i := 1; i < len(times); i++ {
					gap = max(gap, times[i].Sub(times[i-1]))
				}
				if gap < tt.want*3/4 || gap > tt.want*5/4 || n != 1 && n != 2 {
					t.Errorf("a wait of %v (%v in all), want %v", gap, time.Since(start), tt.want)
				}
			})
		})
	}
}

// TestAddress: nothing is asked for without a public address.
func TestAddress(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, cfg Config) {
		addrs := []ma.Multiaddr{
			ma.StringCast("/ip4/10.0.0.4/tcp/4001"), ma.StringCast("/ip6/64:ff9b::1.2.3.4/tcp/4001"),
			ma.StringCast("/ip4/1.2.3.4/tcp/4001/p2p/" + newKey(t).ID().String() + "/p2p-circuit"),
			ma.StringCast("/ip4/1.2.3.4/tcp/4001/tls/ws"), ma.StringCast("/dns4/example.com/tcp/4001"),
		}
		var mu sync.Mutex
		asked := 0
		cfg.Addrs = func() []ma.Multiaddr {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return addrs
		}
		c := run(t, cfg)
		time.Sleep(time.Hour)
		synctest.Wait()
		if calls, _ := w.took(); len(calls) != 0 {
			t.Errorf("calls without a public address: %q", calls)
		}
		mu.Lock()
		if asked < 60 || asked > 66 {
			t.Errorf("addresses asked for %d times in an hour, want about 60", asked)
		}
		addrs = append(addrs, ma.StringCast("/ip4/1.2.3.4/tcp/4001"))
		mu.Unlock()
		since := time.Now()
		<-c.Ready()
		if d := time.Since(since); d > maxPoll+10*time.Second {
			t.Errorf("a certificate after %v", d)
		}
	})
}

// TestFailures: what goes wrong is a typed error, and nothing is asked for behind it.
func TestFailures(t *testing.T) {
	fail := func(call string, status int, kind string) func(string, http.ResponseWriter) bool {
		return func(c string, rw http.ResponseWriter) bool { return c == call && problem(rw, status, kind) }
	}
	say := func(call, body string) func(string, http.ResponseWriter) bool {
		return func(c string, rw http.ResponseWriter) bool {
			if c == call {
				rw.Header().Set("Location", "https://acme.test/order/1")
				rw.Header().Set("Content-Type", "application/json")
				if call == "acme /order" || call == "acme /account" {
					rw.WriteHeader(http.StatusCreated)
				}
				fmt.Fprint(rw, body)
			}
			return c == call
		}
	}
	const broker = "broker POST /v1/_acme-challenge"
	for _, tt := range []struct {
		name  string
		fail  func(string, http.ResponseWriter) bool
		forge func(*x509.Certificate, *any)
		want  error
		last  string // call
	}{
		{"directory", fail("acme /directory", 404, "malformed"), nil, ErrAuthority, "acme /directory"},
		{"directory for a while", fail("acme /directory", 503, "serverInternal"), nil, ErrAuthority, "acme /directory"},
		{"directory without end", say("acme /directory", `{"newNonce": "`+strings.Repeat("x", 2*maxBody)), nil, ErrAuthority, "acme /directory"},
		{"account", fail("acme /account", 403, "unauthorized"), nil, ErrAuthority, "acme /account"},
		{"order", fail("acme /order", 400, "rejectedIdentifier"), nil, ErrAuthority, "acme /order"},
		{"order of much", say("acme /order", `{"status": "pending", "authorizations": ["`+strings.Repeat(`https://acme.test/authz", "`, 5)+`x"], "finalize": "x"}`), nil, ErrAuthority, "acme /order"},
		{"authorization", fail("acme /authz", 404, "malformed"), nil, ErrAuthority, "acme /authz"},
		{"no DNS challenge", say("acme /authz", `{"status": "pending", "identifier": {}, "challenges": [{"type": "http-01", "url": "x", "token": "y"}]}`), nil, ErrAuthority, "acme /authz"},
		{"authorization used up", say("acme /authz", `{"status": "expired", "identifier": {}, "challenges": []}`), nil, ErrAuthority, "acme /authz"},
		{"broker refuses", fail(broker, 403, ""), nil, ErrBroker, broker},
		{"broker without authentication", say(broker, "ok"), nil, ErrBroker, broker},
		{"challenge", fail("acme /challenge", 400, "malformed"), nil, ErrAuthority, "acme /challenge"},
		{"order invalid", say("acme /order/1", `{"status": "invalid", "error": {"type": "urn:x", "detail": "no"}}`), nil, ErrAuthority, "acme /order/1"},
		{"order never ready", say("acme /order/1", `{"status": "processing"}`), nil, ErrAuthority, "acme /order/1"},
		{"request refused", fail("acme /finalize", 403, "badCSR"), nil, ErrAuthority, "acme /finalize"},
		{"no certificate", say("acme /cert", "sorry"), nil, ErrAuthority, "acme /cert"},
		{"certificate without end", say("acme /cert", strings.Repeat("x", 2*maxBody)), nil, ErrAuthority, "acme /cert"},
		{"another key", nil, func(_ *x509.Certificate, public *any) { *public = mustKey().Public() }, ErrAuthority, "acme /cert"},
		{"another name", nil, func(c *x509.Certificate, _ *any) { c.DNSNames = []string{"*.example.com"} }, ErrAuthority, "acme /cert"},
		{"expired", nil, func(c *x509.Certificate, _ *any) { c.NotAfter = c.NotBefore.Add(-time.Second) }, ErrAuthority, "acme /cert"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, cfg Config) {
				w.fail, w.forge = tt.fail, tt.forge
				c, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				cert, err := c.issue(t.Context(), c.dialable(cfg.Addrs()))
				if cert != nil || !errors.Is(err, tt.want) {
					t.Fatalf("%v, %v; want %v", cert, err, tt.want)
				}
				if len(err.Error()) > 1000 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
				calls, _ := w.took()
				if calls[len(calls)-1] != tt.last {
					t.Errorf("the last call is %q, want %q", calls[len(calls)-1], tt.last)
				}
				if took := time.Since(start); took > issueTimeout || len(calls) > 250 {
					t.Errorf("%d calls in %v", len(calls), took)
				}
			})
		})
	}
}

// TestBounded: answers that do not end are cut.
func TestBounded(t *testing.T) {
	c, err := New(Config{
		Key: newKey(t), Addrs: func() []ma.Multiaddr { return nil },
		HTTPClient: &http.Client{Transport: endless{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Get("https://acme.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != maxBody || err != nil {
		t.Errorf("%d bytes, %v; want %d", n, err, maxBody)
	}
}

// endless is a server whose answers do not end.
type endless struct{}

func (endless) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: io.NopCloser(endless{})}, nil
}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// TestRetry: requests to the authority are repeated a few times, and soon, or not at all.
func TestRetry(t *testing.T) {
	resp := func(status int, after string) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {after}}}
	}
	for _, tt := range []struct {
		n    int
		resp *http.Response
		want time.Duration
	}{
		{1, nil, time.Second}, {2, nil, 2 * time.Second}, {4, nil, 8 * time.Second}, {5, nil, 0}, {1 << 30, nil, 0},
		{1, resp(400, ""), noHurry}, {4, resp(400, ""), noHurry}, {5, resp(400, ""), 0},
		{1, resp(503, "30"), 30 * time.Second}, {1, resp(503, "60"), time.Minute}, {1, resp(503, "61"), 0}, {5, resp(503, "1"), 0},
	} {
		if got := retry(tt.n, nil, tt.resp); got != tt.want {
			t.Errorf("retry %d of %+v: %v, want %v", tt.n, tt.resp, got, tt.want)
		}
	}
}

// TestErrors: errors say what the other end said.
func TestErrors(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, cfg Config) {
		cfg.Addrs = func() []ma.Multiaddr { return []ma.Multiaddr{ma.StringCast("/ip4/1.2.3.4/tcp/9")} }
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.issue(t.Context(), c.dialable(cfg.Addrs()))
		if be, ok := errors.AsType[*BrokerError](err); !ok || be.Status != 400 || !strings.Contains(be.Reason, "refused") || !errors.Is(err, ErrBroker) {
			t.Errorf("an address that nobody listens at: %v", err)
		}
		w.fail = func(call string, rw http.ResponseWriter) bool {
			return call == "acme /order" && problem(rw, 403, "rejectedIdentifier")
		}
		_, err = c.issue(t.Context(), c.dialable(cfg.Addrs()))
		if ae, ok := errors.AsType[*acme.Error](err); !ok || ae.StatusCode != 403 {
			t.Errorf("an order refused: %v", err)
		}
	})
}

// TestDNS: what does not appear in the DNS is not said to be there.
//
// "The node SHOULD NOT try to ask for a certificate from the ACME server if dns_timeout
// was reached."
func TestDNS(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, cfg Config) {
		var at []time.Time
		cfg.LookupTXT = func(ctx context.Context, name string) ([]string, error) {
			if want := "_acme-challenge." + Label(w.node.ID()) + ".libp2p.direct"; name != want {
				t.Errorf("looked up %s, want %s", name, want)
			}
			at = append(at, time.Now())
			return []string{"old"}, nil
		}
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.issue(t.Context(), c.dialable(cfg.Addrs())); !errors.Is(err, ErrDNS) {
			t.Errorf("%v, want ErrDNS", err)
		}
		if calls, _ := w.took(); slices.Contains(calls, "acme /challenge") {
			t.Error("the authority is told that it is there")
		}
		// After 0, 1, 3, 7, 15, 31, 63, 123 seconds.
		if n, d := len(at), at[len(at)-1].Sub(at[0]); n != 8 || d != 123*time.Second {
			t.Errorf("%d lookups in %v", n, d)
		}

		n := 0
		cfg.LookupTXT = func(ctx context.Context, name string) ([]string, error) {
			if n++; n < 4 {
				return nil, errors.New("no such name")
			}
			return w.site.LookupTXT(ctx, name)
		}
		if c, err = New(cfg); err != nil {
			t.Fatal(err)
		}
		if _, err := c.issue(t.Context(), c.dialable(cfg.Addrs())); err != nil || n != 4 {
			t.Errorf("after %d lookups: %v", n, err)
		}
	})
}

// TestCancel: an attempt ends with Run.
func TestCancel(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, cfg Config) {
		ctx, cancel := context.WithCancelCause(t.Context())
		end := errors.New("the end")
		cfg.LookupTXT = func(ctx context.Context, _ string) ([]string, error) {
			cancel(end)
			return nil, ctx.Err()
		}
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Run(ctx); !errors.Is(err, end) {
			t.Errorf("Run: %v, want %v", err, end)
		}
	})
}

// TestGetCertificate: there is a certificate for the names in it.
func TestGetCertificate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, cfg Config) {
		c := run(t, cfg)
		names := map[string]bool{
			"1-2-3-4." + c.base: true, strings.ToUpper("x." + c.base): true,
			"": false, "example.com": false, c.base: false, "a.b." + c.base: false, "1-2-3-4." + Label(newKey(t).ID()) + ".libp2p.direct": false,
		}
		check := func(ready bool) {
			t.Helper()
			for name, ours := range names {
				cert, err := c.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
				if (cert != nil) != (ours && ready) || errors.Is(err, ErrNotReady) != (ours && !ready) {
					t.Errorf("%q, ready %v: %v, %v", name, ready, cert != nil, err)
				}
			}
		}
		check(false)
		<-c.Ready()
		check(true)
	})
}

// TestNew: what cannot work is said at once.
func TestNew(t *testing.T) {
	good := Config{Key: newKey(t), Addrs: func() []ma.Multiaddr { return nil }}
	for name, change := range map[string]func(*Config){
		"no key":                    func(c *Config) { c.Key = peer.PrivKey{} },
		"no addresses":              func(c *Config) { c.Addrs = nil },
		"a domain without a broker": func(c *Config) { c.Domain = "example.com" },
		"a broker without TLS":      func(c *Config) { c.Broker = "http://registration.libp2p.direct" },
		"an authority without TLS":  func(c *Config) { c.Directory = "http://127.0.0.1/" },
		"a broker that is no URL":   func(c *Config) { c.Broker = "broker:1:2" },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	c, err := New(good)
	if err != nil || c.Name() != "*."+Label(good.Key.ID())+".libp2p.direct" || c.cfg.Directory != LetsEncrypt {
		t.Errorf("%v, %v", c.Name(), err)
	}
}

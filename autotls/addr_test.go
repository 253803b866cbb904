package autotls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
)

// TestLabel: the spec's example; and all kinds of keys fit into a name of the DNS, and lead
// back to the ID.
// https://github.com/libp2p/specs/blob/master/tls/autotls-client.md#complete-certificate-issuance-example
func TestLabel(t *testing.T) {
	id, err := peer.Parse("12D3KooWATZi2wFwQxQ14Z3q24TDNWKap6f8W5ryLE6Da4RMfsxy")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Label(id), "k51qzi5uqu5dgf513xbrfjl4smgo2eh1x8p8y6grzsf1oz0reiy56p65tds3s6"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, kind := range []peer.KeyType{peer.RSA, peer.Ed25519, peer.Secp256k1, peer.ECDSA} {
		k, err := peer.GenerateKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		l := Label(k.ID())
		if back, err := peer.Parse(l); back != k.ID() || err != nil || len(l) > 63 {
			t.Errorf("%v: %s of %d characters is %v, %v; want %v", kind, l, len(l), back, err, k.ID())
		}
	}
}

func TestIPLabel(t *testing.T) {
	for ip, want := range map[string]string{
		"1.2.3.4":              "1-2-3-4",
		"2001:db8::1":          "2001-db8--1", // the spec's
		"2001:db8::":           "2001-db8--0", // the spec's
		"::1":                  "0--1",
		"::":                   "0--0",
		"2001:db8:1:2:3:4:5:6": "2001-db8-1-2-3-4-5-6",
		"::ffff:1.2.3.4":       "1-2-3-4",
		"fe80::1%eth0":         "fe80--1",
	} {
		if got := ipLabel(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %s, want %s", ip, got, want)
		}
	}
}

func FuzzIPLabel(f *testing.F) {
	for _, s := range []string{"\x01\x02\x03\x04", "0123456789abcdef", strings.Repeat("\x00", 16)} {
		f.Add([]byte(s))
	}
	label := regexp.MustCompile(`^[0-9a-f][0-9a-f-]{0,61}[0-9a-f]$`)
	f.Fuzz(func(t *testing.T, b []byte) {
		if ip, ok := netip.AddrFromSlice(b); ok && !label.MatchString(ipLabel(ip)) {
			t.Errorf("%v: %s", ip, ipLabel(ip))
		}
	})
}

func TestPublic(t *testing.T) {
	for ip, want := range map[string]bool{
		"1.2.3.4": true, "172.32.0.1": true, "100.128.0.1": true, "223.255.255.255": true, "::ffff:8.8.8.8": true,
		"2600::1": true, "2a00::1": true,
		"0.1.2.3": false, "10.1.2.3": false, "100.64.0.1": false, "127.0.0.1": false, "169.254.1.1": false, "172.16.0.1": false,
		"192.168.1.1": false, "192.0.2.1": false, "198.51.100.1": false, "203.0.113.1": false, "198.18.0.1": false,
		"224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false, "::ffff:10.0.0.1": false,
		"::": false, "::1": false, "fe80::1": false, "fd00::1": false, "ff02::1": false, "2001:db8::1": false, "3fff::1": false,
		"64:ff9b::102:304": false, "64:ff9b:1::1": false,
	} {
		if got := public(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %v, want %v", ip, got, want)
		}
	}
}

// parse makes addresses of a text.
func parse(s string) (all []ma.Multiaddr) {
	for f := range strings.FieldsSeq(s) {
		all = append(all, ma.StringCast(f))
	}
	return all
}

func TestAddrs(t *testing.T) {
	key := newKey(t)
	c, err := New(Config{Key: key, Addrs: func() []ma.Multiaddr { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	other := newKey(t).ID().String()
	sni := "/tls/sni/1-2-3-4." + Label(key.ID()) + ".libp2p.direct/ws"
	sni6 := "/tls/sni/2600--1." + Label(key.ID()) + ".libp2p.direct/ws"
	for _, tt := range []struct{ in, before, after string }{
		// Others.
		{"/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1"},
		{"/ip4/1.2.3.4/tcp/1/ws", "/ip4/1.2.3.4/tcp/1/ws", "/ip4/1.2.3.4/tcp/1/ws"},
		{"/ip4/1.2.3.4/udp/1/quic-v1", "/ip4/1.2.3.4/udp/1/quic-v1", "/ip4/1.2.3.4/udp/1/quic-v1"},
		{"/dns4/example.com/tcp/1/wss", "/dns4/example.com/tcp/1/wss", "/dns4/example.com/tcp/1/wss"},
		{"/ip4/1.2.3.4/tcp/1/tls/sni/example.com/ws", "/ip4/1.2.3.4/tcp/1/tls/sni/example.com/ws", "/ip4/1.2.3.4/tcp/1/tls/sni/example.com/ws"},
		{"/ip4/1.2.3.4/tcp/1/tls/http", "/ip4/1.2.3.4/tcp/1/tls/http", "/ip4/1.2.3.4/tcp/1/tls/http"},
		{"/ip4/1.2.3.4/tcp/1/wss/p2p/" + other + "/p2p-circuit", "/ip4/1.2.3.4/tcp/1/wss/p2p/" + other + "/p2p-circuit", "/ip4/1.2.3.4/tcp/1/wss/p2p/" + other + "/p2p-circuit"},
		{"/memory/1", "/memory/1", "/memory/1"},
		// Ours.
		{"/ip4/1.2.3.4/tcp/1/tls/ws", "", "/ip4/1.2.3.4/tcp/1" + sni},
		{"/ip4/1.2.3.4/tcp/443/wss", "", "/ip4/1.2.3.4/tcp/443" + sni},
		{"/ip4/1.2.3.4/tcp/1/tls/sni/*.libp2p.direct/ws", "", "/ip4/1.2.3.4/tcp/1" + sni},
		{"/ip4/1.2.3.4/tcp/1/tls/ws/http-path/a%2Fb", "", "/ip4/1.2.3.4/tcp/1" + sni + "/http-path/a%2Fb"},
		{"/ip4/1.2.3.4/tcp/1/tls/ws/p2p/" + other, "", "/ip4/1.2.3.4/tcp/1" + sni + "/p2p/" + other},
		{"/ip6/2600::1/tcp/1/tls/ws", "", "/ip6/2600::1/tcp/1" + sni6},
		// Ours, where nobody comes from outside.
		{"/ip4/192.168.0.1/tcp/1/tls/ws /ip4/127.0.0.1/tcp/1/wss /ip6/::1/tcp/1/wss /ip4/0.0.0.0/tcp/1/wss", "", ""},
		// Already so.
		{"/ip4/1.2.3.4/tcp/1" + sni, "/ip4/1.2.3.4/tcp/1" + sni, "/ip4/1.2.3.4/tcp/1" + sni},
	} {
		in := parse(tt.in)
		text := fmt.Sprint(in)
		c.cert.Store(nil)
		if got, want := fmt.Sprint(c.Addrs(in)), fmt.Sprint(parse(tt.before)); got != want {
			t.Errorf("%s before: %s, want %s", tt.in, got, want)
		}
		c.cert.Store(&tls.Certificate{Leaf: &x509.Certificate{NotAfter: time.Now().Add(time.Hour)}})
		if got, want := fmt.Sprint(c.Addrs(in)), fmt.Sprint(parse(tt.after)); got != want {
			t.Errorf("%s after: %s, want %s", tt.in, got, want)
		}
		if fmt.Sprint(in) != text {
			t.Errorf("%s has become %s", text, in)
		}
	}

	private, err := New(Config{Key: key, Addrs: c.cfg.Addrs, AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	private.cert.Store(c.cert.Load())
	if got, want := fmt.Sprint(private.Addrs(parse("/ip4/127.0.0.1/tcp/1/tls/ws"))), "[/ip4/127.0.0.1/tcp/1/tls/sni/127-0-0-1."+Label(key.ID())+".libp2p.direct/ws]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestDialable: what the broker is told.
func TestDialable(t *testing.T) {
	c, err := New(Config{Key: newKey(t), Addrs: func() []ma.Multiaddr { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	other := newKey(t).ID().String()
	got := c.dialable(parse("/ip4/1.2.3.4/tcp/1 /ip4/10.0.0.1/tcp/1 /ip4/1.2.3.4/tcp/2/ws /ip4/1.2.3.4/tcp/3/tls/ws /ip4/1.2.3.4/tcp/4/wss " +
		"/ip4/1.2.3.4/udp/5/quic-v1 /ip6/2600::1/tcp/6 /ip6/64:ff9b::1.2.3.4/tcp/7 /dns4/example.com/tcp/8 /memory/9 " +
		"/ip4/1.2.3.4/tcp/10/p2p/" + other + "/p2p-circuit"))
	if want := "[/ip4/1.2.3.4/tcp/1 /ip4/1.2.3.4/tcp/2/ws /ip4/1.2.3.4/udp/5/quic-v1 /ip6/2600::1/tcp/6]"; fmt.Sprint(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	var many []ma.Multiaddr
	for i := range 100 {
		many = append(many, ma.StringCast(fmt.Sprintf("/ip4/1.2.3.4/tcp/%d", i)))
	}
	if got := c.dialable(many); len(got) != maxAddrs {
		t.Errorf("%d addresses, want %d", len(got), maxAddrs)
	}
}

// FuzzAddrs: addresses that a client makes are addresses, for its certificate.
func FuzzAddrs(f *testing.F) {
	for _, a := range parse("/ip4/1.2.3.4/tcp/1/tls/ws /ip6/2600::1/tcp/1/wss/http-path/a /ip4/1.2.3.4/tcp/1/tls/sni/*.libp2p.direct/ws /ip6zone/x/ip6/fe80::1/tcp/1/wss /dns4/a/tcp/1/wss") {
		f.Add(a.Bytes())
	}
	c, err := New(Config{Key: newKey(f), Addrs: func() []ma.Multiaddr { return nil }})
	if err != nil {
		f.Fatal(err)
	}
	c.cert.Store(&tls.Certificate{Leaf: &x509.Certificate{NotAfter: time.Now().Add(time.Hour)}})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return
		}
		c.dialable([]ma.Multiaddr{a})
		for _, out := range c.Addrs([]ma.Multiaddr{a}) {
			if out.Equal(a) {
				continue
			}
			if back, err := ma.NewMultiaddrBytes(out.Bytes()); err != nil || !back.Equal(out) {
				t.Fatalf("%v: %v, %v", a, out, err)
			}
			sni, err := out.ValueForProtocol(ma.P_SNI)
			if cert, _ := c.GetCertificate(&tls.ClientHelloInfo{ServerName: sni}); cert == nil || err != nil {
				t.Fatalf("%v has become %v, which the certificate is not for", a, out)
			}
		}
	})
}

// FuzzRetryAfter: whatever a server tells, it is waited for within bounds.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "1", "-1", "99999999999999999999", "Sat, 01 Jan 2000 05:00:00 GMT", "Fri, 31 Dec 9999 05:00:00 GMT"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseRetryAfter(s); d < 0 || d > maxRefused {
			t.Errorf("%q: %v", s, d)
		}
	})
}

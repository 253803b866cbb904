package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
)

var _ Resolver = (*net.Resolver)(nil)

// A zone is a Resolver. IP addresses are under "ip name", "ip4 name" and "ip6 name".
type zone struct {
	m     map[string][]string
	asked int
}

func (z *zone) LookupTXT(ctx context.Context, name string) ([]string, error) {
	z.asked++
	if v, ok := z.m[name]; ok {
		return v, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (z *zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	z.asked++
	var out []netip.Addr
	for _, s := range z.m[network+" "+host] {
		out = append(out, netip.MustParseAddr(s))
	}
	if out == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return out, nil
}

func id(s string) peer.ID {
	if s == "" {
		return ""
	}
	_, p := peer.SplitAddr(ma.StringCast("/p2p/" + s))
	return p
}

func TestResolve(t *testing.T) {
	names := map[string][]string{
		"ip a.example":  {"192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"},
		"ip4 a.example": {"192.0.2.1", "2001:db8::1"},
		"ip6 a.example": {"2001:db8::1", "fe80::1%eth0"},

		"_dnsaddr.boot.example": {
			"dnsaddr=/dnsaddr/a.boot.example/p2p/" + idA, "dnsaddr=/dnsaddr/b.boot.example/p2p/" + idB,
			"v=spf1 -all", "dnsaddr=/dnsaddr/nowhere.example/p2p/" + idA,
		},
		"_dnsaddr.a.boot.example": {
			"dnsaddr=/dns4/a.example/tcp/4001/p2p/" + idA, "dnsaddr=/dns4/a.example/udp/4001/quic-v1/p2p/" + idA,
			"dnsaddr=/ip4/192.0.2.1/tcp/4001/p2p/" + idA, "dnsaddr=/ip4/192.0.2.66/tcp/4001/p2p/" + idB,
		},
		"_dnsaddr.b.boot.example": {"dnsaddr=/ip4/192.0.2.2/tcp/1/p2p/" + idB},
		"_dnsaddr.private.example": {
			"dnsaddr=/ip4/192.0.2.9/tcp/1/p2p/" + idB + "/p2p-circuit/p2p/" + idA,
		},
		"_dnsaddr.bare.example":   {"dnsaddr=/ip4/192.0.2.1/tcp/1", "dnsaddr=/ip4/192.0.2.1/udp/1/quic-v1/p2p/" + idA},
		"_dnsaddr.bad.example":    {"dnsaddr=", "dnsaddr=/ip4/300.0.0.1", "dnsaddr=ip4", "dnsaddr=/p2p/" + idA, "DNSADDR=/ip4/192.0.2.1/tcp/1"},
		"_dnsaddr.circle.example": {"dnsaddr=/dnsaddr/circle.example/p2p/" + idA, "dnsaddr=/dnsaddr/circle.example"},
		"_dnsaddr.0.example":      {"dnsaddr=/dnsaddr/1.example"},
		"_dnsaddr.1.example":      {"dnsaddr=/dnsaddr/2.example"},
		"_dnsaddr.2.example":      {"dnsaddr=/dnsaddr/3.example"},
		"_dnsaddr.3.example":      {"dnsaddr=/dnsaddr/4.example"},
		"_dnsaddr.4.example":      {"dnsaddr=/dnsaddr/5.example", "dnsaddr=/ip4/192.0.2.4/tcp/1"},
		"_dnsaddr.5.example":      {"dnsaddr=/ip4/192.0.2.5/tcp/1"},
	}
	tests := []struct {
		name string
		in   string
		peer string
		want []string
		err  string // a part of it
	}{
		{"no name", "/ip4/192.0.2.1/tcp/1", idA, []string{"/ip4/192.0.2.1/tcp/1"}, ""},
		{"its peer goes", "/ip4/192.0.2.1/tcp/1/p2p/" + idA, idA, []string{"/ip4/192.0.2.1/tcp/1"}, ""},
		{"or stays", "/ip4/192.0.2.1/tcp/1/p2p/" + idA, "", []string{"/ip4/192.0.2.1/tcp/1/p2p/" + idA}, ""},
		{"another peer", "/ip4/192.0.2.1/tcp/1/p2p/" + idB, idA, nil, "names another peer"},
		{"dns", "/dns/a.example/tcp/1", "", []string{"/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/tcp/1"}, ""},
		{"dns4", "/dns4/a.example/udp/1/quic-v1", "", []string{"/ip4/192.0.2.1/udp/1/quic-v1"}, ""},
		{"dns6", "/dns6/a.example/tcp/1", "", []string{"/ip6/2001:db8::1/tcp/1", "/ip6/fe80::1/tcp/1"}, ""},
		{"unknown", "/dns4/b.example/tcp/1", "", nil, "no such host"},
		{"a relay", "/dns4/a.example/tcp/1/p2p/" + idB + "/p2p-circuit/p2p/" + idA, idA, []string{"/ip4/192.0.2.1/tcp/1/p2p/" + idB + "/p2p-circuit"}, ""},
		{"wss", "/dns4/a.example/tcp/443/wss", "", []string{"/ip4/192.0.2.1/tcp/443/tls/sni/a.example/ws"}, ""},
		{"tls/ws", "/dns4/a.example/tcp/443/tls/ws/p2p/" + idA, "", []string{"/ip4/192.0.2.1/tcp/443/tls/sni/a.example/ws/p2p/" + idA}, ""},
		{"tls/sni/ws", "/dns4/a.example/tcp/443/tls/sni/b.example/ws", "", []string{"/ip4/192.0.2.1/tcp/443/tls/sni/b.example/ws"}, ""},
		{"tls", "/dns4/a.example/tcp/443/tls", "", []string{"/ip4/192.0.2.1/tcp/443/tls"}, ""},
		{"https", "/dns4/a.example/tcp/443/https", "", []string{"/ip4/192.0.2.1/tcp/443/tls/sni/a.example/http"}, ""},

		{"dnsaddr of a peer", "/dnsaddr/boot.example", idA, []string{"/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.1/udp/4001/quic-v1"}, ""},
		{"dnsaddr that names it", "/dnsaddr/boot.example/p2p/" + idB, "", []string{"/ip4/192.0.2.2/tcp/1/p2p/" + idB}, ""},
		{"dnsaddr that names another", "/dnsaddr/boot.example/p2p/" + idB, idA, nil, "no entry of it fits"},
		{"dnsaddr of all", "/dnsaddr/boot.example", "", []string{
			"/ip4/192.0.2.1/tcp/4001/p2p/" + idA, "/ip4/192.0.2.1/udp/4001/quic-v1/p2p/" + idA, "/ip4/192.0.2.2/tcp/1/p2p/" + idB,
		}, ""},
		{"dnsaddr to a relay", "/dnsaddr/private.example", idA, []string{"/ip4/192.0.2.9/tcp/1/p2p/" + idB + "/p2p-circuit"}, ""},
		{"dnsaddr of a relay", "/dnsaddr/boot.example/p2p/" + idB + "/p2p-circuit", idA, []string{"/ip4/192.0.2.2/tcp/1/p2p/" + idB + "/p2p-circuit"}, ""},
		{"dnsaddr without a peer", "/dnsaddr/bare.example", "", []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1/p2p/" + idA}, ""},
		{"but one is wanted", "/dnsaddr/bare.example", idA, []string{"/ip4/192.0.2.1/udp/1/quic-v1"}, ""},
		{"malformed", "/dnsaddr/bad.example", idA, nil, "malformed entry"},
		{"a circle", "/dnsaddr/circle.example", "", nil, "comes twice"},
		{"too deep", "/dnsaddr/0.example", "", nil, "more than 4 dnsaddr names"},
		{"deep", "/dnsaddr/1.example", "", []string{"/ip4/192.0.2.4/tcp/1"}, ""},
		{"deep enough", "/dnsaddr/2.example", "", []string{"/ip4/192.0.2.4/tcp/1", "/ip4/192.0.2.5/tcp/1"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Resolve(t.Context(), &zone{m: names}, ma.StringCast(tt.in), id(tt.peer))
			var text []string
			for _, a := range got {
				text = append(text, a.String())
			}
			if strings.Join(text, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got %v, want %v", text, tt.want)
			}
			if tt.want != nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if _, ok := errors.AsType[*ResolveError](err); !ok || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), tt.in) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestResolveBounds(t *testing.T) {
	m := map[string][]string{}
	var wide, many []string
	for i := range 1000 {
		wide = append(wide, fmt.Sprintf("dnsaddr=/dnsaddr/%d.example", i))
		many = append(many, fmt.Sprintf("dnsaddr=/ip4/192.0.2.1/tcp/%d", i+1))
		m[fmt.Sprintf("_dnsaddr.%d.example", i)] = []string{fmt.Sprintf("dnsaddr=/dns/%d.example/tcp/1", i), "dnsaddr=x"}
	}
	m["_dnsaddr.wide.example"] = wide
	m["_dnsaddr.many.example"] = many
	z := &zone{m: m}
	_, err := Resolve(t.Context(), z, ma.StringCast("/dnsaddr/wide.example"), "")
	if e, ok := errors.AsType[*ResolveError](err); !ok || z.asked != maxLookups || len(e.Errs) != maxErrs {
		t.Errorf("%d lookups, %v", z.asked, err)
	}
	got, err := Resolve(t.Context(), z, ma.StringCast("/dnsaddr/many.example"), "")
	if len(got) != maxResolved || err != nil {
		t.Errorf("%d addresses, %v", len(got), err)
	}

	// The same question is asked once.
	z = &zone{m: map[string][]string{"ip a": {"192.0.2.1"}}}
	for i := range 50 {
		z.m["_dnsaddr.x"] = append(z.m["_dnsaddr.x"], fmt.Sprintf("dnsaddr=/dns/a/tcp/%d", i+1))
	}
	if got, _ := Resolve(t.Context(), z, ma.StringCast("/dnsaddr/x"), ""); len(got) != 50 || z.asked != 2 {
		t.Errorf("%d addresses by %d lookups", len(got), z.asked)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := Resolve(ctx, z, ma.StringCast("/dnsaddr/x"), ""); !errors.Is(err, cause) {
		t.Error(err)
	}
	if _, err := Resolve(t.Context(), z, nil, ""); err == nil {
		t.Error("nothing resolved")
	}
}

// Whatever stands in TXT records: no panic, bounded work, and only addresses of the
// wanted peer.
func FuzzDNSAddr(f *testing.F) {
	f.Add("dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/"+idA, "dnsaddr=/dnsaddr/b.example/p2p/"+idA, "/p2p/"+idA, true)
	f.Add("dnsaddr=/dns4/a/tcp/1/wss/p2p/"+idB, "v=spf1", "", false)
	f.Add("dnsaddr=/dnsaddr/a.example", "dnsaddr=/dnsaddr/b.example/p2p-circuit", "/p2p/"+idB+"/p2p-circuit", false)
	f.Fuzz(func(t *testing.T, x, y, end string, wanted bool) {
		a, err := ma.NewMultiaddr("/dnsaddr/a.example" + end)
		if err != nil {
			return
		}
		z := &zone{m: map[string][]string{"_dnsaddr.a.example": {x, y}, "_dnsaddr.b.example": {y, x}, "ip4 a": {"192.0.2.1"}, "ip a": {"192.0.2.1"}}}
		var want peer.ID
		if wanted {
			want = id(idA)
		}
		got, err := Resolve(context.Background(), z, a, want)
		if (len(got) == 0) != (err != nil) || z.asked > maxLookups {
			t.Fatalf("%v, %v, %d lookups", got, err, z.asked)
		}
		for _, a := range got {
			if _, id := peer.SplitAddr(a); want != "" && id != "" && id != want || len(a) == 0 {
				t.Fatalf("got %s", a)
			}
		}
	})
}

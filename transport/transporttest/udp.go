package transporttest

import (
	"net"
	"net/netip"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
)

// UDP describes a transport of sessions that has UDP ports below it.
type UDP struct {
	// New returns the transport of a host. A nil network is that of the system.
	New func(key peer.PrivKey, n transport.Network) transport.Sessions

	Listen  string         // what follows the port in an address to listen on
	Dial    string         // the same in one to dial
	Foreign []ma.Multiaddr // as in Sessions

	Goroutines, Streams int // as in Sessions
}

func (p UDP) sessions(ip string) Sessions {
	return Sessions{
		Listen:  ma.StringCast(ip + "/udp/0" + p.Listen),
		Foreign: p.Foreign, Goroutines: p.Goroutines, Streams: p.Streams,
	}
}

// TestUDP is TestSessions on this machine, by IPv4 and by IPv6.
func TestUDP(t *testing.T, p UDP) {
	for _, ip := range []string{"/ip4/127.0.0.1", "/ip6/::1"} {
		t.Run(ip[1:4], func(t *testing.T) {
			s := p.sessions(ip)
			s.New = func(_ testing.TB, client, server peer.PrivKey) (x, y transport.Sessions) {
				return p.New(client, nil), p.New(server, nil)
			}
			s.Silent = silent(t, ip).Encapsulate(ma.StringCast(p.Dial))
			TestSessions(t, s)
		})
	}
}

// silent returns an address where a socket is bound that nobody reads.
func silent(t testing.TB, ip string) ma.Multiaddr {
	t.Helper()
	at, _, _ := transport.IP(ma.StringCast(ip))
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { c.Close() })
	a, err := transport.FromUDP(c.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestUDPSim is TestSessions in virtual time. pair makes the networks of two hosts, at
// 10.0.0.1 and 10.0.0.2, on a link of their own.
func TestUDPSim(t *testing.T, p UDP, pair func(t testing.TB) (x, y transport.Network)) {
	s := p.sessions("/ip4/10.0.0.2")
	s.New = func(t testing.TB, client, server peer.PrivKey) (c, s transport.Sessions) {
		x, y := pair(t)
		return p.New(client, x), p.New(server, y)
	}
	s.Silent = ma.StringCast("/ip4/10.0.0.3/udp/1" + p.Dial)
	s.Bubble = true
	TestSessions(t, s)
}

// Key makes a key.
func Key(t testing.TB) peer.PrivKey {
	t.Helper()
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

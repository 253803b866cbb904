package dial

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// A Ranked address is to be tried Delay after the first, or earlier if all
// before it failed.
type Ranked struct {
	Addr  ma.Multiaddr
	Delay time.Duration
}

// How long one attempt may run before the next one joins. In a local network
// answers are quick.
const (
	stepPublic  = 250 * time.Millisecond // RFC 8305's "Connection Attempt Delay"
	stepLocal   = 30 * time.Millisecond
	otherPublic = time.Second // before what takes more round trips than QUIC and TCP
	otherLocal  = 100 * time.Millisecond
	relayed     = 500 * time.Millisecond // before relays, if there is a direct address
)

// Rank says in which order to try a peer's addresses, and when.
//
// Local addresses (loopback, link-local, private), public ones, and those of relays
// each have a schedule of their own, and these run side by side; that of the relays
// begins 500 ms later. In each,
//
//   - QUIC comes first, as it is a round trip faster and punches holes,
//   - then TCP, 250 ms after the last QUIC,
//   - then WebSocket, WebTransport, WebRTC and whatever else, 1 s after that.
//
// Within each of these the families alternate, IPv6 first: the second address
// has a delay of 250 ms and all others of 500 ms. Local addresses take 30 ms instead
// of 250, and 100 ms instead of 1 s. The order of addrs decides between equals.
//
// Left out are repetitions, with a peer at the end or without, and what cannot be
// dialed: the unspecified address, multicast, port 0, and link-local IPv6
// without a zone.
//
// The result is sorted by delay.
func Rank(addrs []ma.Multiaddr) []Ranked {
	items := make([]item, 0, len(addrs))
	var count [3][3][4][2]int // by schedule, tier, kind and family
	for _, a := range addrs {
		it, ok := classify(a)
		// A few hundred addresses at most (Resolve, identify), so this is cheap.
		if !ok || slices.ContainsFunc(items, func(b item) bool { return it.same(&b) }) {
			continue
		}
		fam := 1
		if it.v6 {
			fam = 0
		}
		// 6 4 6 4 …, by kind
		n := &count[it.schedule][it.tier][it.kind][fam]
		it.place = int(it.kind)<<32 + 2**n + fam
		*n++
		items = append(items, it)
	}
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.schedule, b.schedule), cmp.Compare(a.tier, b.tier), cmp.Compare(a.place, b.place))
	})

	out := make([]Ranked, len(items))
	var last time.Duration // of the schedule so far
	n := 0                 // in the tier so far
	for i, it := range items {
		step, other := stepPublic, otherPublic
		if it.schedule == local {
			step, other = stepLocal, otherLocal
		}
		switch {
		case i == 0 || it.schedule != items[i-1].schedule:
			n, last = 0, 0
			if it.schedule == relay && i > 0 {
				last = relayed
			}
		case it.tier != items[i-1].tier:
			n = 0
			if it.tier == others {
				last += other
			} else {
				last += step
			}
		default:
			if n++; n <= 2 {
				last += step
			}
		}
		out[i] = Ranked{it.addr, last}
	}
	slices.SortStableFunc(out, func(a, b Ranked) int { return cmp.Compare(a.Delay, b.Delay) })
	return out
}

// schedules, in the order in which they are sorted
const (
	local = iota
	public
	relay
)

// tiers of a schedule, in order
const (
	quic = iota
	tcp
	others
)

// kinds of others, in order
const (
	websocket = iota
	webtransport
	webrtc
	unknown
)

// An item is an address and what Rank needs to know of it.
type item struct {
	addr     ma.Multiaddr
	schedule uint8
	tier     uint8
	kind     uint8
	v6       bool
	udp      bool
	place    int // within the tier
}

// same tells that both lead to the same place.
func (it *item) same(b *item) bool {
	return it.schedule == b.schedule && it.tier == b.tier && it.v6 == b.v6 && bare(it.addr).Equal(bare(b.addr))
}

// bare is a without a peer at the end.
func bare(a ma.Multiaddr) ma.Multiaddr {
	if n := len(a); n > 0 && a[n-1].Code() == ma.P_P2P {
		return a[:n-1]
	}
	return a
}

var cgnat = netip.MustParsePrefix("100.64.0.0/10")

// classify returns what an address is, or false if it cannot be dialed.
func classify(a ma.Multiaddr) (it item, ok bool) {
	if len(bare(a)) == 0 {
		return it, false
	}
	it = item{addr: a, schedule: public, tier: others, kind: unknown}
	zone := false
	for i := range a {
		c := &a[i]
		switch c.Code() {
		case ma.P_IP6ZONE:
			zone = true
		case ma.P_IP4, ma.P_IP6:
			ip, _ := netip.AddrFromSlice(c.RawValue())
			ip = ip.Unmap()
			switch {
			case !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
				return it, false
			case ip.Is6() && ip.IsLinkLocalUnicast() && !zone:
				return it, false // on which of our interfaces?
			case ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || cgnat.Contains(ip):
				it.schedule = local
			}
			it.v6 = ip.Is6()
		case ma.P_DNS6:
			it.v6 = true
		case ma.P_TCP:
			it.tier = tcp
		case ma.P_UDP:
			it.udp = true
		case ma.P_QUIC_V1, ma.P_QUIC:
			it.tier = quic
		case ma.P_WS, ma.P_WSS, ma.P_HTTP, ma.P_HTTPS:
			it.tier, it.kind = others, websocket
		case ma.P_WEBTRANSPORT:
			it.tier, it.kind = others, webtransport
		case ma.P_WEBRTC_DIRECT, ma.P_WEBRTC:
			it.tier, it.kind = others, webrtc
		case ma.P_MEMORY, ma.P_UNIX:
			it.schedule, it.tier = local, tcp
		case ma.P_CIRCUIT:
			it.schedule = relay
			if i <= 1 {
				it.tier = quic // by a relay without an address: we are connected to it
			}
		case ma.P_UTP, ma.P_UDT, ma.P_SCTP, ma.P_DCCP, ma.P_ONION, ma.P_ONION3, ma.P_GARLIC32, ma.P_GARLIC64:
			it.tier, it.kind = others, unknown
		}
		if c.Code() == ma.P_TCP || c.Code() == ma.P_UDP {
			if p := c.RawValue(); len(p) == 2 && binary.BigEndian.Uint16(p) == 0 {
				return it, false
			}
		}
	}
	if it.tier != others {
		it.kind = 0
	}
	return it, true
}

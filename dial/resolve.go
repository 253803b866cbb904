package dial

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
)

// Bounds on what the owners of names may make us do.
const (
	maxResolved   = 100 // addresses that Resolve returns, and entries that it takes of one TXT answer
	maxLookups    = 64  // questions that it asks
	maxRecursion  = 4   // dnsaddr names that lead to one another
	maxErrs       = 16  // errors that it reports
	dnsaddrPrefix = "dnsaddr="
)

// A Resolver looks up names. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// A ResolveError says why an address led to none that can be dialed.
type ResolveError struct {
	Addr ma.Multiaddr
	Errs []error // of the lookups, or why an answer was not used; the first few
}

func (e *ResolveError) Error() string {
	s := fmt.Sprintf("dial: no addresses for %s", e.Addr)
	for _, err := range e.Errs {
		s += "; " + err.Error()
	}
	return s
}

func (e *ResolveError) Unwrap() []error { return e.Errs }

var (
	errRecursion = fmt.Errorf("more than %d dnsaddr names one after the other", maxRecursion)
	errLookups   = fmt.Errorf("more than %d lookups", maxLookups)
	errSeen      = errors.New("comes twice")
	errOther     = errors.New("names another peer")
	errNowhere   = errors.New("no entry of it fits")
)

// Resolve replaces the name that addr begins with by what it stands for: one of
// /dns, /dns4 and /dns6 by IP addresses, /dnsaddr by the addresses of its TXT
// records, and so on until no name is left. An address without a name is
// returned as it is. A name in front of TLS and WebSocket stays as its /sni.
//
// If want is given, only addresses that are its are returned, without the /p2p
// that says so. The order is that of the answers, without repetitions.
//
// An error is a [ResolveError], and comes only when there is no address at all.
func Resolve(ctx context.Context, r Resolver, addr ma.Multiaddr, want peer.ID) ([]ma.Multiaddr, error) {
	s := resolution{ctx: ctx, r: r, want: want, ips: map[string][]netip.Addr{}, txts: map[string][]string{}}
	seen := map[string]bool{}
	s.queue = []step{{addr, 0}}
	for len(s.queue) > 0 && len(s.found) < maxResolved {
		next := s.queue[0]
		s.queue = s.queue[1:]
		// Names may lead to each other in circles.
		key := string(next.addr.Bytes())
		if seen[key] {
			s.fail(next.addr, errSeen)
			continue
		}
		seen[key] = true
		s.step(next)
	}
	if len(s.found) == 0 {
		return nil, &ResolveError{Addr: addr, Errs: s.errs}
	}
	return s.found, nil
}

// A resolution is the state of Resolve.
type resolution struct {
	ctx  context.Context
	r    Resolver
	want peer.ID

	queue []step // at most maxLookups × maxResolved
	found []ma.Multiaddr
	errs  []error

	lookups int
	ips     map[string][]netip.Addr // answers, by network and name
	txts    map[string][]string
}

// A step is an address to look at, behind so many dnsaddr names.
type step struct {
	addr  ma.Multiaddr
	depth int
}

func (s *resolution) fail(a ma.Multiaddr, err error) {
	if len(s.errs) < maxErrs {
		s.errs = append(s.errs, fmt.Errorf("%s: %w", a, err))
	}
}

func (s *resolution) step(at step) {
	if len(at.addr) == 0 {
		return
	}
	host := at.addr[0].Value()
	switch at.addr[0].Code() {
	case ma.P_DNS:
		s.name(at, "ip", host)
	case ma.P_DNS4:
		s.name(at, "ip4", host)
	case ma.P_DNS6:
		s.name(at, "ip6", host)
	case ma.P_DNSADDR:
		s.dnsaddr(at, host)
	default:
		s.add(at.addr)
	}
}

// add takes an address without a name.
func (s *resolution) add(a ma.Multiaddr) {
	if s.want != "" {
		base, id := peer.SplitAddr(a)
		if id != "" && id != s.want {
			s.fail(a, errOther)
			return
		}
		a = base
	}
	if len(a) == 0 || len(s.found) >= maxResolved {
		return
	}
	for _, b := range s.found {
		if a.Equal(b) {
			return
		}
	}
	s.found = append(s.found, a)
}

// ask counts a lookup, and tells whether it may be made.
func (s *resolution) ask(a ma.Multiaddr) bool {
	if s.ctx.Err() != nil {
		s.fail(a, context.Cause(s.ctx))
		return false
	}
	if s.lookups == maxLookups {
		s.fail(a, errLookups)
		return false
	}
	s.lookups++
	return true
}

func (s *resolution) name(at step, network, host string) {
	key := network + " " + host
	ips, ok := s.ips[key]
	if !ok {
		if !s.ask(at.addr) {
			return
		}
		var err error
		if ips, err = s.r.LookupNetIP(s.ctx, network, host); err != nil {
			s.fail(at.addr, err)
		}
		s.ips[key] = ips
	}
	rest := withSNI(at.addr[1:], host)
	for _, ip := range ips {
		ip = ip.Unmap().WithZone("")
		proto := "ip4"
		if ip.Is6() {
			proto = "ip6"
		}
		if !ip.IsValid() || network != "ip" && network != proto {
			continue
		}
		if c, err := ma.NewComponent(proto, ip.String()); err == nil {
			s.add(concat(ma.Multiaddr{*c}, rest))
		}
	}
}

// dnsaddr follows a name to the addresses in its TXT records.
//
// "A /dnsaddr may specify additional nested protocols that must match when
// resolving the TXT record. When the TXT records are resolved, items whose suffix
// doesn't match the provided one are dropped."
// https://github.com/multiformats/multiaddr/blob/master/protocols/DNSADDR.md#suffix-matching
func (s *resolution) dnsaddr(at step, host string) {
	if at.depth == maxRecursion {
		s.fail(at.addr, errRecursion)
		return
	}
	txts, ok := s.txts[host]
	if !ok {
		if !s.ask(at.addr) {
			return
		}
		var err error
		if txts, err = s.r.LookupTXT(s.ctx, "_dnsaddr."+host); err != nil {
			s.fail(at.addr, err)
		}
		s.txts[host] = txts
	}
	// The name of a relay stands for the relay, whom the end of an entry must
	// name; what is beyond it stays.
	end, beyond := at.addr[1:], ma.Multiaddr(nil)
	for i, c := range end {
		if c.Code() == ma.P_CIRCUIT {
			end, beyond = end[:i], end[i:]
			break
		}
	}
	n := 0
	for _, txt := range txts {
		text, ok := strings.CutPrefix(txt, dnsaddrPrefix)
		if !ok {
			continue // a record of somebody else
		}
		entry, err := ma.NewMultiaddr(text)
		if err != nil {
			s.fail(at.addr, fmt.Errorf("malformed entry %.100q: %w", text, err))
			continue
		}
		if !endsIn(entry, end) {
			continue
		}
		if _, id := peer.SplitAddr(entry); s.want != "" && beyond == nil && id != s.want {
			continue
		}
		if n++; n > maxResolved {
			break
		}
		s.queue = append(s.queue, step{concat(entry, beyond), at.depth + 1})
	}
	if n == 0 && len(txts) > 0 {
		s.fail(at.addr, errNowhere)
	}
}

// withSNI keeps the name for a server that has several: /tls/ws becomes
// /tls/sni/<host>/ws, and /wss and /https, which have TLS inside, are spelled out.
//
// https://github.com/libp2p/specs/blob/master/websockets/README.md#addressing
func withSNI(rest ma.Multiaddr, host string) ma.Multiaddr {
	for i, c := range rest {
		after := rest[i+1:]
		switch c.Code() {
		case ma.P_TLS:
			if len(after) == 0 || after[0].Code() != ma.P_WS && after[0].Code() != ma.P_HTTP {
				return rest
			}
		case ma.P_WSS:
			after = concat(ma.StringCast("/ws"), after)
		case ma.P_HTTPS:
			after = concat(ma.StringCast("/http"), after)
		case ma.P_P2P:
			return rest // what follows is another host's
		default:
			continue
		}
		sni, err := ma.NewComponent("sni", host)
		if err != nil {
			return rest
		}
		return concat(rest[:i], ma.StringCast("/tls"), ma.Multiaddr{*sni}, after)
	}
	return rest
}

func endsIn(a, end ma.Multiaddr) bool {
	return len(a) >= len(end) && a[len(a)-len(end):].Equal(end)
}

func concat(parts ...ma.Multiaddr) ma.Multiaddr {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	a := make(ma.Multiaddr, 0, n)
	for _, p := range parts {
		a = append(a, p...)
	}
	return a
}

package dial

import (
	"context"
	"errors"
	"sync"

	ma "github.com/multiformats/go-multiaddr"
)

// A kind of address is taken for swallowed by the network when less than
// holeSuccesses of the last holeWindow dials succeeded. Then one in holeProbe dials
// tries it nevertheless.
const (
	holeWindow    = 100
	holeSuccesses = 5
	holeProbe     = 20
)

// A BlackHole tells from the dials of one kind whether the network drops that
// kind. The zero value is ready, and takes the network for good until it has seen
// a hundred dials. All methods may be called concurrently.
type BlackHole struct {
	mu        sync.Mutex
	outcomes  [holeWindow]bool // a ring
	n         int              // dials seen, of which the last holeWindow are in outcomes
	successes int              // among them
	asked     int              // since it is blocked
}

// Allow tells whether to dial. It says yes once in a while when Blocked, to
// find out whether that is over.
func (b *BlackHole) Allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.blockedLocked() {
		return true
	}
	b.asked++
	return b.asked%holeProbe == 0
}

// Blocked tells whether the network seems to drop this kind.
func (b *BlackHole) Blocked() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.blockedLocked()
}

func (b *BlackHole) blockedLocked() bool {
	return b.n >= holeWindow && b.successes < holeSuccesses
}

// Record notes how a dial ended: nil is a success, and whoever heard anything
// from the other end, be it a refusal, should say nil. A dial that was called
// off tells nothing about the network: [ErrLost] and context.Canceled are not
// counted. That of a deadline is.
func (b *BlackHole) Record(err error) {
	if errors.Is(err, ErrLost) || errors.Is(err, context.Canceled) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil && b.blockedLocked() {
		b.resetLocked() // one is enough to give it another chance
	}
	i := b.n % holeWindow
	if b.n >= holeWindow && b.outcomes[i] {
		b.successes--
	}
	b.outcomes[i] = err == nil
	if err == nil {
		b.successes++
	}
	if b.n++; b.n == 2*holeWindow {
		b.n = holeWindow
	}
}

// Reset forgets all dials, as after a change of network.
func (b *BlackHole) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resetLocked()
}

func (b *BlackHole) resetLocked() { b.n, b.successes, b.asked = 0, 0, 0 }

// BlackHoles are those that many networks have: no UDP, or no IPv6 worth the
// name. Only public addresses count, not those of relays. The zero value is ready.
type BlackHoles struct {
	UDP, IPv6 BlackHole
}

// Filter divides the addresses of one dial into those to try and those that
// the network seems to drop.
func (b *BlackHoles) Filter(addrs []ma.Multiaddr) (try, dropped []ma.Multiaddr) {
	var asked, udp, v6 bool
	for _, a := range addrs {
		it, ok := classify(a)
		if !ok || it.schedule != public || !it.udp && !it.v6 {
			try = append(try, a)
			continue
		}
		if !asked {
			// Once for all, so that it is a share of the dials, however many
			// addresses each has.
			asked, udp, v6 = true, b.UDP.Allow(), b.IPv6.Allow()
		}
		if it.udp && !udp || it.v6 && !v6 {
			dropped = append(dropped, a)
		} else {
			try = append(try, a)
		}
	}
	return try, dropped
}

// Record notes how a dial to a ended, as [BlackHole.Record] does.
func (b *BlackHoles) Record(a ma.Multiaddr, err error) {
	it, ok := classify(a)
	if !ok || it.schedule != public {
		return
	}
	if it.udp {
		b.UDP.Record(err)
	}
	if it.v6 {
		b.IPv6.Record(err)
	}
}

// Reset forgets all dials, as after a change of network.
func (b *BlackHoles) Reset() {
	b.UDP.Reset()
	b.IPv6.Reset()
}

package simnet

import (
	"math"
	"time"
)

// congestion decides how many bytes may be under way, and how fast to send. It
// follows BBR's idea as simply as it goes: find out at which rate bytes arrive at
// the other end, and how long a round trip takes without a queue; send at this
// rate, a bit faster from time to time to see whether more gets through, and slower after
// that. Once per round trip it looks at what it has found.
//
// https://datatracker.ietf.org/doc/html/draft-ietf-ccwg-bbr
type congestion struct {
	mss    int
	window int     // bytes that may be under way
	gain   float64 // times the rate that we send at
	phase  phase

	base, nextBase int64 // shortest round trip of the last period and this one, and of this one
	basePeriod     int64 // when this period began

	rates []float64 // bytes per second that arrived in the last rounds
	round int
	flat  int     // rounds in which the rate has not grown by a quarter
	far   int     // rounds that took too long for base to be true
	best  float64 // the rate that it should have outgrown

	// This round:
	fastest float64 // bytes per second, by the best of its acknowledgements
	rtt     int64   // shortest
	full    bool    // the window, or the rate, kept us from sending
	wasFull bool    // in the last round
	waiting bool    // anything kept us from sending: the application had enough for us
}

type phase uint8

const (
	starting phase = iota // doubling each round until that does not help any more
	draining              // the queue that this has made
	steady
)

const (
	unknown    = math.MaxInt64
	basePeriod = int64(5 * time.Second)
	cycle      = 8 // rounds, of which the first is faster and the second slower
)

func (g *congestion) start(mss int, now int64) {
	*g = congestion{mss: mss, window: 10 * mss, base: unknown, nextBase: unknown, basePeriod: now, rtt: unknown}
}

// sample takes a round-trip time.
func (g *congestion) sample(now, rtt int64) {
	if now-g.basePeriod > basePeriod {
		g.base, g.nextBase, g.basePeriod = g.nextBase, unknown, now
	}
	g.base, g.nextBase = min(g.base, rtt), min(g.nextBase, rtt)
	g.rtt = min(g.rtt, rtt)
}

// arrived takes bytes that have arrived, and how many there have been in what time.
func (g *congestion) arrived(n int, since int64, took int64) {
	if g.phase == starting && (g.full || g.wasFull) {
		g.window += n
	}
	if took > 0 {
		g.fastest = max(g.fastest, float64(since)/float64(took)*1e9)
	}
}

// pace is the rate to send at in bytes per second; 0: at once.
func (g *congestion) pace() float64 {
	switch {
	case g.phase != starting:
		return g.gain * g.rate()
	case g.base > 0 && g.base != unknown:
		return 2 * float64(g.window) / float64(g.base) * 1e9
	}
	return 0
}

// rate is what got through in the best round of late.
func (g *congestion) rate() float64 {
	best := 0.0
	for _, r := range g.rates {
		best = max(best, r)
	}
	return best
}

// endRound is called when a round trip is over.
func (g *congestion) endRound() {
	if g.fastest > 0 && g.base != unknown {
		g.learn(g.fastest)
	}
	g.fastest, g.rtt, g.wasFull, g.full, g.waiting = 0, unknown, g.full, false, false
}

func (g *congestion) learn(rate float64) {
	before := g.rate()
	if !g.waiting && rate <= before {
		return // the application did not write more
	}
	if len(g.rates) < cycle {
		g.rates = append(g.rates, rate)
	} else {
		g.rates[g.round%cycle] = rate
	}
	g.round++
	product := g.rate() * float64(g.base) / 1e9
	slack := max(float64(4*g.mss), g.rate()*0.002) // the granularity of links, and of pacing

	// Our own queue is not longer than product + slack. When there is more for
	// long, the way has become longer.
	if g.far++; g.rtt == unknown || float64(g.rtt-2*g.base)*g.rate() < 2*slack*1e9 {
		g.far = 0
	}
	if g.far == 3 {
		g.far, g.base, g.nextBase = 0, g.rtt, g.rtt
		product = g.rate() * float64(g.base) / 1e9
	}

	switch g.phase {
	case starting:
		if g.flat++; rate > g.best*5/4 {
			g.best, g.flat = rate, 0
		}
		queue := g.rtt != unknown && g.rtt-g.base > max(g.base/8, int64(2*time.Millisecond))
		if !g.waiting || g.flat == 0 || g.flat < 3 && !queue {
			return
		}
		g.phase, g.gain = draining, 1
		g.window = int(product + slack)
		return
	case draining:
		g.phase, g.round = steady, 1
	}
	g.window = int(2*product + slack)
	switch {
	case g.gain > 1 && rate > before*1.1:
		// Going on where more gets through.
	case g.gain > 1:
		g.gain = 0.75
	case g.round%cycle == 0:
		g.gain = 1.25
	default:
		g.gain = 1
	}
}

// timeout begins anew, after nothing has arrived for long.
func (g *congestion) timeout() {
	g.window = min(g.window, 4*g.mss)
	g.phase, g.flat, g.best = starting, 0, 0
}

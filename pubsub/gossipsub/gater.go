package gossipsub

import (
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/plexus-p2p/plexus/pubsub"
)

// GaterParams say when messages are dropped at random, so that a flood does not take
// the validators' room from everybody. Zero fields have the spec's defaults.
//
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/red.md
type GaterParams struct {
	Threshold      float64       // dropped messages to validated ones, from which on it is done; zero: 0.33
	Quiet          time.Duration // without a drop, after which it ends; zero: one minute
	GlobalDecay    float64       // per second; zero: to 1 % in two minutes
	SourceDecay    float64       // the same for one address; zero: in one hour
	Retain         time.Duration // an address whose peers left; zero: six hours
	Duplicate      float64       // weights; zero: 0.125
	Ignore         float64       // zero: 1
	Reject         float64       // zero: 16
	DeliveryWeight map[string]float64
}

// maxSources bounds the addresses that are remembered.
const maxSources = 8192

// A gater is the random early drop of red.md.
type gater struct {
	p         GaterParams
	validated float64
	throttled float64
	lastDrop  time.Time
	decayed   time.Time
	by        map[netip.Addr]*source
}

// A source is the peers on one address.
type source struct {
	peers                                int
	until                                time.Time // forgotten then, if there are no peers
	accept, duplicate, ignored, rejected float64
}

func newGater(p GaterParams) (*gater, error) {
	def := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&p.Threshold, 0.33)
	def(&p.GlobalDecay, Decay(2*time.Minute, time.Second))
	def(&p.SourceDecay, Decay(time.Hour, time.Second))
	def(&p.Duplicate, 0.125)
	def(&p.Ignore, 1)
	def(&p.Reject, 16)
	if p.Quiet == 0 {
		p.Quiet = time.Minute
	}
	if p.Retain == 0 {
		p.Retain = 6 * time.Hour
	}
	switch {
	case !finite(p.Threshold, p.Duplicate, p.Ignore, p.Reject) || p.Threshold < 0 || p.Duplicate < 0 || p.Ignore < 0 || p.Reject < 0:
		return nil, errors.New("the gater's Threshold and weights must not be negative")
	case !factor(p.GlobalDecay) || !factor(p.SourceDecay):
		return nil, errors.New("the gater's decays must be between 0 and 1")
	case p.Quiet < time.Second || p.Retain < 0:
		return nil, errors.New("the gater's Quiet must be at least one second, and Retain not negative")
	}
	for _, w := range p.DeliveryWeight {
		if !finite(w) || w < 0 {
			return nil, errors.New("the gater's DeliveryWeight must not be negative")
		}
	}
	return &gater{p: p, by: make(map[netip.Addr]*source)}, nil
}

func (g *gater) add(p *pubsub.Peer) {
	s := g.by[p.IP]
	if s == nil {
		s = new(source)
		g.by[p.IP] = s
	}
	s.peers++
}

// remove notes that a peer left.
//
// "per IP statistics are retained for a configured period of time after
// disconnection, so that an attacker cannot easily clear traces of misbehaviour"
func (g *gater) remove(now time.Time, p *pubsub.Peer) {
	s := g.by[p.IP]
	if s == nil {
		return
	}
	if s.peers--; s.peers == 0 {
		s.until = now.Add(g.p.Retain)
		if len(g.by) > maxSources {
			delete(g.by, p.IP)
		}
	}
}

// refresh lets the counters decay, once a second.
func (g *gater) refresh(now time.Time) {
	if g.decayed.IsZero() {
		g.decayed = now
	}
	n := math.Floor(now.Sub(g.decayed).Seconds())
	if n < 1 {
		return
	}
	g.decayed = g.decayed.Add(time.Duration(n) * time.Second)
	decay := func(v *float64, f float64) {
		if *v *= math.Pow(f, n); *v < 0.01 {
			*v = 0
		}
	}
	decay(&g.validated, g.p.GlobalDecay)
	decay(&g.throttled, g.p.GlobalDecay)
	for ip, s := range g.by {
		if s.peers == 0 && !now.Before(s.until) {
			delete(g.by, ip)
			continue
		}
		for _, v := range []*float64{&s.accept, &s.duplicate, &s.ignored, &s.rejected} {
			decay(v, g.p.SourceDecay)
		}
	}
}

// admit decides on what p sends.
//
// "The router generates a random float r and accepts the message if and only if
// r < (1 + accepted) / (1 + accepted + W_duplicate * duplicate + W_ignored * ignored +
// W_rejected * rejected)"
func (g *gater) admit(now time.Time, p *pubsub.Peer, rnd *rand.Rand) pubsub.Admission {
	if g.throttled == 0 || now.Sub(g.lastDrop) > g.p.Quiet || g.validated != 0 && g.throttled/g.validated < g.p.Threshold {
		return pubsub.AdmitAll
	}
	s := g.by[p.IP]
	if s == nil {
		return pubsub.AdmitAll
	}
	good := 1 + s.accept
	if rnd.Float64() < good/(good+g.p.Duplicate*s.duplicate+g.p.Ignore*s.ignored+g.p.Reject*s.rejected) {
		return pubsub.AdmitAll
	}
	return pubsub.AdmitControl
}

func (g *gater) received() { g.validated++ }

func (g *gater) duplicate(p *pubsub.Peer) {
	if s := g.by[p.IP]; s != nil {
		s.duplicate++
	}
}

func (g *gater) decided(now time.Time, p *pubsub.Peer, topic string, o pubsub.Outcome) {
	if o == pubsub.Throttled {
		g.throttled++
		g.lastDrop = now
	}
	if p == nil {
		return
	}
	s := g.by[p.IP]
	if s == nil {
		return
	}
	switch o {
	case pubsub.Accepted:
		w, ok := g.p.DeliveryWeight[topic]
		if !ok {
			w = 1 // "If a topic is not configured, then its delivery weight is 1."
		}
		s.accept += w
	case pubsub.Ignored:
		s.ignored++
	case pubsub.Rejected, pubsub.Forged:
		s.rejected++
	}
}

package gossip

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

// DiscoveryTopic is where hosts say where they are, unless they agree on others.
const DiscoveryTopic = "_peer-discovery._p2p._pubsub"

const (
	// dials at the same time, to peers that were discovered.
	dials = 4

	dialTimeout = 15 * time.Second
	retryFirst  = 30 * time.Second // after a dial that failed
	retryMost   = 10 * time.Minute

	// forgetAfter is how many intervals a peer is believed to be where it last said.
	forgetAfter = 60
)

// DiscoveryConfig says how a host discovers others. Every zero value works.
type DiscoveryConfig struct {
	// Topics are where hosts say where they are. Nil: [DiscoveryTopic].
	Topics []string

	// Interval is from one time that this host says so to the next. Zero: 10 seconds.
	Interval time.Duration

	// ListenOnly hears others and says nothing.
	ListenOnly bool

	// Connect is how many connections are enough: while the host has fewer, peers that
	// are discovered are dialed. Zero: none are.
	Connect int

	// MaxPeers is how many peers are remembered. Zero: 1024.
	MaxPeers int

	// Found hears of each peer that was not known, before it is dialed. It must be
	// quick and must not call the Discovery. Nil: nobody does.
	Found func(peer.AddrInfo)

	// Logger hears, at Debug, of what fails. Nil: nobody does.
	Logger *slog.Logger
}

// A Discovery says where its host is, and hears where others are. Its methods may be
// called concurrently.
type Discovery struct {
	// Fixed.
	h      *plexus.Host
	cfg    DiscoveryConfig
	topics []*pubsub.Topic
	ctx    context.Context
	stop   context.CancelFunc
	wg     sync.WaitGroup
	arrive chan struct{} // holds an element when a neighbour has come

	mu      sync.Mutex
	peers   *table[peer.ID, heard]
	dialing int
}

// heard is a peer that has said where it is.
type heard struct {
	info  peer.AddrInfo
	at    time.Time     // when it last said so
	retry time.Time     // when to dial it again, and
	pause time.Duration // how long after the time before
}

// Discover begins to discover peers for h, until Close is called or h closes. The error
// says what is wrong with cfg, or that a topic is joined already.
func Discover(h *plexus.Host, ps *pubsub.PubSub, cfg DiscoveryConfig) (*Discovery, error) {
	if cfg.Interval < 0 || cfg.MaxPeers < 0 || cfg.Connect < 0 {
		return nil, errors.New("gossip: a field of DiscoveryConfig is negative")
	}
	if cfg.Topics == nil {
		cfg.Topics = []string{DiscoveryTopic}
	}
	if cfg.Interval == 0 {
		cfg.Interval = 10 * time.Second
	}
	if cfg.MaxPeers == 0 {
		cfg.MaxPeers = 1024
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Discovery{
		h: h, cfg: cfg, arrive: make(chan struct{}, 1),
		peers: newTable[peer.ID, heard](cfg.MaxPeers, (cfg.MaxPeers+1)/2),
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	for _, name := range cfg.Topics {
		t, err := ps.Join(name, pubsub.TopicConfig{
			Policy:    pubsub.StrictSign,
			Validator: &pubsub.Validator{Check: d.check, Inline: true},
		})
		if err != nil {
			d.close()
			return nil, err
		}
		d.topics = append(d.topics, t)
		t.Relay()
	}
	for _, t := range d.topics {
		d.wg.Go(func() { // ends with d.ctx
			for c := range t.Watch(d.ctx) {
				if c.Here {
					kick(d.arrive)
				}
			}
		})
	}
	d.wg.Go(d.run) // ends with d.ctx
	context.AfterFunc(d.ctx, d.close)
	go follow(d.ctx, h, d.stop)
	return d, nil
}

// follow calls stop with the end of a host.
func follow(ctx context.Context, h *plexus.Host, stop func()) {
	select {
	case <-h.Done():
		stop()
	case <-ctx.Done():
	}
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (d *Discovery) close() {
	d.mu.Lock()
	d.stop() // from here on nothing begins
	d.mu.Unlock()
	for _, t := range d.topics {
		t.Close()
	}
}

// Close ends d.
func (d *Discovery) Close() error {
	d.close()
	d.wg.Wait()
	return nil
}

// check judges a beacon, and notes what it says.
func (d *Discovery) check(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.Outcome {
	if m.From == d.h.ID() {
		return pubsub.Accepted
	}
	b, err := parseBeacon(m.Data)
	if err != nil || b.key.ID() != m.From {
		return pubsub.Rejected // nobody speaks for others
	}
	now := time.Now()
	info := b.info()
	d.mu.Lock()
	p := d.peers.get(m.From)
	if p != nil && now.Sub(p.at) < d.cfg.Interval/20 && slices.EqualFunc(p.info.Addrs, info.Addrs, ma.Multiaddr.Equal) {
		d.mu.Unlock()
		return pubsub.Ignored // it says too often what is known
	}
	known := p != nil
	p = d.peers.touch(m.From, from)
	p.info, p.at = info, now
	if d.wantsLocked(p, now) {
		d.wg.Go(func() { d.dial(info) }) // ends after dialTimeout; there are at most dials
	}
	d.mu.Unlock()
	d.h.Peers().Add(info, plexus.TTLHeard)
	if !known && d.cfg.Found != nil {
		d.cfg.Found(info)
	}
	return pubsub.Accepted
}

// wantsLocked reports whether to dial p, and if so counts it as being dialed.
func (d *Discovery) wantsLocked(p *heard, now time.Time) bool {
	if d.ctx.Err() != nil || d.dialing >= dials || now.Before(p.retry) || len(p.info.Addrs) == 0 || len(d.h.ConnsTo(p.info.ID)) > 0 {
		return false
	}
	if n := len(slices.Collect(d.h.Conns())); n+d.dialing >= d.cfg.Connect {
		return false
	}
	p.pause = min(max(2*p.pause, retryFirst), retryMost)
	p.retry = now.Add(p.pause)
	d.dialing++
	return true
}

func (d *Discovery) dial(info peer.AddrInfo) {
	// All who hear of a newcomer at once should not dial it at once.
	select {
	case <-time.After(rand.N(time.Second)):
	case <-d.ctx.Done():
	}
	ctx, cancel := context.WithTimeout(d.ctx, dialTimeout)
	defer cancel()
	_, err := d.h.Dial(ctx, info)
	if err != nil {
		d.cfg.Logger.Debug("cannot connect to a peer that was discovered", "peer", info.ID, "err", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dialing--
	if p := d.peers.get(info.ID); p != nil && err == nil {
		p.pause = 0
	}
}

// run says where this host is.
func (d *Discovery) run() {
	if d.cfg.ListenOnly {
		return
	}
	tick := time.NewTicker(d.cfg.Interval)
	defer tick.Stop()
	soon := time.NewTimer(0) // a moment after somebody has come
	<-soon.C
	for {
		select {
		case <-d.arrive:
			soon.Reset(d.cfg.Interval / 10)
			continue
		case <-soon.C:
		case <-tick.C:
		case <-d.ctx.Done():
			return
		}
		d.say()
	}
}

// say publishes a beacon, where there is something to say and somebody to hear it.
func (d *Discovery) say() {
	addrs := d.h.Info().Full()
	if len(addrs) == 0 {
		return
	}
	b := beacon{key: d.h.Key().Public(), addrs: addrs[:min(len(addrs), maxAddrs)]}.append(nil)
	for _, t := range d.topics {
		ctx, cancel := context.WithTimeout(d.ctx, d.cfg.Interval)
		if _, err := t.Publish(ctx, b); err != nil && !errors.Is(err, pubsub.ErrNoPeers) {
			d.cfg.Logger.Debug("cannot say where this host is", "topic", t.String(), "err", err)
		}
		cancel()
	}
}

// Peers yields the peers that were heard of lately, the latest first.
func (d *Discovery) Peers() iter.Seq[peer.AddrInfo] {
	var all []peer.AddrInfo
	d.mu.Lock()
	d.peers.each(func(_ peer.ID, p *heard) bool {
		if time.Since(p.at) < forgetAfter*d.cfg.Interval {
			all = append(all, p.info)
		}
		return true
	})
	d.mu.Unlock()
	return slices.Values(all)
}

// find returns where a peer said that it is.
func (d *Discovery) find(id peer.ID) (peer.AddrInfo, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.peers.get(id); p != nil && time.Since(p.at) < forgetAfter*d.cfg.Interval && len(p.info.Addrs) > 0 {
		return p.info, true
	}
	return peer.AddrInfo{}, false
}

func fail(what string, err error) error { return fmt.Errorf("gossip: %s: %w", what, err) }

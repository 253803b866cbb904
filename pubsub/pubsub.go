package pubsub

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
)

// Defaults of Config.
const (
	DefaultMaxMessage      = 1 << 20
	DefaultSeenTTL         = 2 * time.Minute
	DefaultSeenEntries     = 1 << 20
	DefaultSeenBytes       = 256 << 20
	DefaultTopicsPerPeer   = 1024
	DefaultOwnQueue        = 1 << 20
	DefaultForwardQueue    = 8 << 20
	DefaultSubscriberQueue = 8 << 20
	DefaultPatience        = time.Second
	DefaultConnects        = 8
)

// Config says how a PubSub behaves. Every zero value works.
type Config struct {
	// Policy says how messages are signed, where a topic says nothing else. Zero: StrictSign.
	Policy Policy

	// Key signs this host's messages. Zero: the host's.
	Key peer.PrivKey

	// MessageID identifies messages, where a topic says nothing else. All peers of a
	// topic must do it in the same way. It is called concurrently. Nil: author
	// and sequence number under StrictSign, [DataID] under StrictNoSign.
	MessageID func(*Message) MessageID

	// Validator is asked about every message before its topic's is. Nil: none.
	Validator *Validator

	// MaxMessage is how many bytes a peer's RPC, and with it a message, may have.
	// Zero: 1 MiB, which is what deployed peers take. At least 1 KiB.
	MaxMessage int

	// AllowTopic says which topics of peers are noted. Zero: all, TopicsPerPeer of
	// each peer, for which zero is 1024.
	AllowTopic    func(topic string) bool
	TopicsPerPeer int

	// OwnQueue and ForwardQueue bound what waits for one peer, in bytes: this host's
	// own messages, and others'. Zero: 1 MiB and 8 MiB. SubscriberQueue is the same for
	// one subscription; zero: 8 MiB.
	OwnQueue        int
	ForwardQueue    int
	SubscriberQueue int

	// Patience is how long Publish waits for room in a peer's queue before it leaves
	// that peer out. Zero: one second.
	Patience time.Duration

	// SeenTTL is how long messages are remembered to tell duplicates; SeenEntries
	// and SeenBytes bound how many, and in how much memory. Zero: 2 minutes, 2^20, 256 MiB.
	SeenTTL     time.Duration
	SeenEntries int
	SeenBytes   int

	// Connects is how many peers that a router names are dialed at the same time.
	// Zero: 8. Negative: none.
	Connects int

	// Record returns the sealed peer.Record of a neighbour, for peer exchange; the
	// second result is false where there is none. Nil: what the peer has told identify.
	Record func(peer.ID) ([]byte, bool)

	// Trace hears of everything that happens, in order. It must be quick and must not
	// call the PubSub. Nil: nobody does.
	Trace func(Event)

	// Seed makes the router's choices repeatable. Zero: they are not.
	Seed uint64

	// Logger hears, at Debug, what peers do wrong. Nil: nobody does.
	Logger *slog.Logger
}

func (c *Config) defaults() {
	c.Policy = cmp.Or(c.Policy, StrictSign)
	c.MaxMessage = cmp.Or(c.MaxMessage, DefaultMaxMessage)
	c.OwnQueue = cmp.Or(c.OwnQueue, DefaultOwnQueue)
	c.ForwardQueue = cmp.Or(c.ForwardQueue, DefaultForwardQueue)
	c.SubscriberQueue = cmp.Or(c.SubscriberQueue, DefaultSubscriberQueue)
	c.Patience = cmp.Or(c.Patience, DefaultPatience)
	c.Connects = cmp.Or(c.Connects, DefaultConnects)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// check says what is wrong with c, defaults applied but for those of Core.
func (c *Config) check() error {
	if c.Policy != StrictSign && c.Policy != StrictNoSign {
		return fmt.Errorf("pubsub: no signing policy %d", c.Policy)
	}
	err := tooSmall([]field{
		{"Config.MaxMessage", c.MaxMessage, c.MaxMessage < 1<<10},
		{"Config.TopicsPerPeer", c.TopicsPerPeer, c.TopicsPerPeer < 0},
		{"Config.OwnQueue", c.OwnQueue, c.OwnQueue < 0},
		{"Config.ForwardQueue", c.ForwardQueue, c.ForwardQueue < 0},
		{"Config.SubscriberQueue", c.SubscriberQueue, c.SubscriberQueue < 0},
		{"Config.Patience", c.Patience, c.Patience < 0},
		{"Config.SeenTTL", c.SeenTTL, c.SeenTTL < 0},
		{"Config.SeenEntries", c.SeenEntries, c.SeenEntries < 0},
		{"Config.SeenBytes", c.SeenBytes, c.SeenBytes < 0},
	})
	if err != nil {
		return err
	}
	return c.Validator.check()
}

// A field of a configuration, and whether it is too small.
type field struct {
	name  string
	value any
	low   bool
}

// tooSmall names the first field that is.
func tooSmall(fields []field) error {
	for _, f := range fields {
		if f.low {
			return fmt.Errorf("pubsub: %s is too small: %v", f.name, f.value)
		}
	}
	return nil
}

// ErrClosed means that a PubSub, a Topic or a Subscription is closed.
var ErrClosed = plexus.ErrClosed

// PubSub is publish and subscribe on one host. All its methods may be called
// concurrently.
//
// It has a goroutine for each stream that a peer opened, one for each stream that it
// opened until the peer has answered, one for each peer while something waits to be
// written, and up to one for each processor to check signatures.
//
// Locks, in the order in which they nest: mu, then an outbox's or a subscription's.
type PubSub struct {
	// Fixed.
	h         *plexus.Host
	cfg       Config
	log       *slog.Logger
	protocols []string
	key       peer.PrivKey
	ctx       context.Context
	stop      context.CancelCauseFunc
	unnotify  func()
	helpers   chan struct{} // tokens of goroutines that check signatures beside a reader
	buffers   sync.Pool     // of *[]byte, for what is written
	readers   sync.Pool     // of *bufio.Reader
	wg        sync.WaitGroup

	authors authors
	seqno   atomic.Uint64
	count   counters
	topics  atomic.Pointer[map[string]*Topic] // those that are joined; replaced under mu

	mu      sync.Mutex // guards all below, and what Topic says of itself
	core    *Core
	actions Actions // empty while mu is free
	links   map[peer.ID]*link
	timer   *time.Timer
	armed   time.Time            // what it is set to
	change  chan struct{}        // closed when peers or subscriptions change; made on demand
	dialing map[peer.ID]struct{} // at most cfg.Connects, for the router
	early   int                  // of core.seen.early that is counted
	closed  bool
}

// New runs pubsub on h with a router until Close is called or h closes. A router
// belongs to one PubSub. The error says what is wrong with cfg.
func New(h *plexus.Host, r Router, cfg Config) (*PubSub, error) {
	cfg.defaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	ps := &PubSub{
		h:         h,
		cfg:       cfg,
		log:       cfg.Logger,
		protocols: r.Protocols(),
		key:       cfg.Key,
		helpers:   make(chan struct{}, runtime.GOMAXPROCS(0)),
		links:     make(map[peer.ID]*link),
		dialing:   make(map[peer.ID]struct{}),
	}
	if ps.key.IsZero() {
		ps.key = h.Key()
	}
	ps.ctx, ps.stop = context.WithCancelCause(context.Background())
	ps.buffers.New = func() any { b := make([]byte, 0, maxBatch); return &b }
	ps.readers.New = func() any { return bufio.NewReaderSize(nil, readBuffer) }
	ps.seqno.Store(uint64(time.Now().UnixNano())) // grows over restarts without being stored
	ps.topics.Store(&map[string]*Topic{})
	ps.mu.Lock()
	ps.core = NewCore(time.Now(), CoreConfig{
		Self:          h.ID(),
		Seed:          cfg.Seed,
		SeenTTL:       cfg.SeenTTL,
		SeenEntries:   cfg.SeenEntries,
		SeenBytes:     cfg.SeenBytes,
		TopicsPerPeer: cfg.TopicsPerPeer,
		AllowTopic:    cfg.AllowTopic,
		Record:        ps.record,
		Tracing:       cfg.Trace != nil,
	}, r, &ps.actions)
	ps.core.drops = ps.count.drop
	ps.timer = time.AfterFunc(time.Hour, ps.tick)
	ps.rearm()
	ps.perform(nil)
	ps.mu.Unlock()
	for _, p := range ps.protocols {
		h.Handle(p, ps.serve)
	}
	ps.unnotify = h.Notify(ps.notify)
	for c := range h.Conns() {
		ps.notify(plexus.Connected{Conn: c})
	}
	go ps.follow() // ends with Close or the host
	return ps, nil
}

// follow closes ps with its host.
func (ps *PubSub) follow() {
	select {
	case <-ps.h.Done():
		ps.Close()
	case <-ps.ctx.Done():
	}
}

// Close ends ps: its subscriptions end, peers see their streams reset.
func (ps *PubSub) Close() error {
	ps.mu.Lock()
	if ps.closed {
		ps.mu.Unlock()
		return nil
	}
	ps.closed = true
	ps.timer.Stop()
	for _, t := range *ps.topics.Load() {
		t.closeLocked()
	}
	for _, l := range ps.links {
		if l.in != nil {
			l.in.Reset(plexus.CodeNone)
		}
		l.out.close()
	}
	ps.mu.Unlock()
	ps.unnotify()
	for _, p := range ps.protocols {
		ps.h.Unhandle(p)
	}
	ps.stop(ErrClosed)
	ps.wg.Wait()
	return nil
}

func (ps *PubSub) record(id peer.ID) []byte {
	if ps.cfg.Record != nil {
		b, _ := ps.cfg.Record(id)
		return b
	}
	for _, c := range ps.h.ConnsTo(id) {
		if i := c.Identity(); i != nil && i.Record != nil {
			return i.Record
		}
	}
	return nil
}

// tick lets time pass for the core.
func (ps *PubSub) tick() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed {
		return
	}
	ps.core.Tick(time.Now(), &ps.actions)
	ps.perform(nil)
	if n := ps.core.seen.early; n > ps.early {
		ps.count.drop(SeenEarly, n-ps.early)
		ps.early = n
	}
	ps.rearm()
}

// seenTick is how often IDs are forgotten when the router wants no time.
const seenTick = 10 * time.Second

func (ps *PubSub) rearm() {
	ps.armed = ps.core.Due()
	if ps.armed.IsZero() {
		ps.armed = time.Now().Add(seenTick)
	}
	ps.timer.Reset(max(0, time.Until(ps.armed)))
}

// published is a message of this host's on its way out.
type published struct {
	m    *Message
	took int       // peers that it is queued for
	late []*outbox // those that have no room for it yet
}

// perform does what the core wants done, and empties ps.actions. own are this host's
// messages among that, which are filled in.
func (ps *PubSub) perform(own []published) {
	a := &ps.actions
	for _, s := range a.Controls {
		switch {
		case s.To.out == nil:
		case s.Control != nil:
			s.To.out.control(s.Control)
		default:
			s.To.out.parts(s.Partial)
		}
	}
	for _, s := range a.Sends {
		r := s.To.out.push(s.Message, s.own > 0)
		switch {
		case r == gone:
			ps.dropped(PeerGone, s.To.ID, s.Message.ID)
		case s.own > 0 && r == queued:
			own[s.own-1].took++
		case s.own > 0:
			own[s.own-1].late = append(own[s.own-1].late, s.To.out)
		case r == full:
			ps.dropped(ForwardQueueFull, s.To.ID, s.Message.ID)
			ps.core.router.Missed(time.Now(), s.To, s.Message)
		}
	}
	for _, c := range a.Connects {
		ps.dial(c)
	}
	for _, e := range a.Events {
		ps.cfg.Trace(e)
	}
	a.Reset()
	if due := ps.core.Due(); due.Before(ps.armed) && !due.IsZero() {
		ps.rearm()
	}
}

// dropped counts a drop and tells of it.
func (ps *PubSub) dropped(r Reason, p peer.ID, id MessageID) {
	ps.count.drop(r, 1)
	if ps.cfg.Trace != nil {
		ps.cfg.Trace(Dropped{Reason: r, Peer: p, ID: id})
	}
}

// dial connects to a peer that the router names.
func (ps *PubSub) dial(c Connect) {
	if ps.closed || len(ps.h.ConnsTo(c.Info.ID)) > 0 {
		return
	}
	if _, ok := ps.dialing[c.Info.ID]; ok {
		return
	}
	if len(ps.dialing) >= ps.cfg.Connects {
		ps.count.drop(PXFull, 1)
		return
	}
	ps.dialing[c.Info.ID] = struct{}{}
	ps.wg.Go(func() { // ends after dialTimeout
		defer func() {
			ps.mu.Lock()
			delete(ps.dialing, c.Info.ID)
			ps.mu.Unlock()
		}()
		if len(c.Record) > 0 {
			// The record is whatever somebody sent.
			rec, err := peer.OpenRecord(c.Record)
			if err != nil || rec.ID != c.Info.ID {
				ps.log.Debug("bad record of a peer to connect to", "peer", c.Info.ID, "err", err)
				return
			}
			c.Info.Addrs = rec.Addrs
		}
		ctx, cancel := context.WithTimeout(ps.ctx, dialTimeout)
		defer cancel()
		if _, err := ps.h.Dial(ctx, c.Info); err != nil {
			ps.log.Debug("cannot connect to a peer that was named", "peer", c.Info.ID, "err", err)
		}
	})
}

const dialTimeout = 30 * time.Second

// changed wakes those who wait for peers.
func (ps *PubSub) changed() {
	if ps.change != nil {
		close(ps.change)
		ps.change = nil
	}
}

// Stats tells what ps has done.
func (ps *PubSub) Stats() Stats { return ps.count.stats() }

// Topics lists the topics that this host has joined, in order.
func (ps *PubSub) Topics() []string {
	var names []string
	for name := range *ps.topics.Load() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Peers lists the neighbours that are subscribed to a topic; with "" all that speak
// pubsub.
func (ps *PubSub) Peers(topic string) []peer.ID {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if topic == "" {
		return ids(ps.core.Peers())
	}
	return ids(ps.core.In(topic))
}

// Mesh lists the neighbours to which a topic's messages go at once.
func (ps *PubSub) Mesh(topic string) []peer.ID {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ids(ps.core.router.Mesh(topic))
}

func ids(peers []*Peer) []peer.ID {
	l := make([]peer.ID, 0, len(peers))
	for _, p := range peers {
		l = append(l, p.ID)
	}
	return l
}

// Scores tells what the router thinks of each peer, and why. It yields nothing where
// peers are not scored.
func (ps *PubSub) Scores() iter.Seq[Score] {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return slices.Values(ps.core.router.Scores(time.Now()))
}

// Do calls f as one of the router's calls, with the present time, and does what f
// adds to the Actions: for functions that a router has beside those of [Router]. f must
// not call ps.
func (ps *PubSub) Do(f func(now time.Time, a *Actions)) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed {
		return
	}
	f(time.Now(), &ps.actions)
	ps.perform(nil)
}

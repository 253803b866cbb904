package gossip

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/fetch"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/routing"
)

// Topic is where hosts ask for providers, and say what they provide.
const Topic = "/plexus/routing/1.0.0"

const (
	// spacing is from one notice of this host to the next.
	spacing = 250 * time.Millisecond

	// An author may send so many notices a second, and so many at once.
	authorRate  = 8
	authorBurst = 32

	// quiet is how long after it was said that a key is provided, that is not said again
	// because somebody asks.
	quiet = time.Second

	// askAgain is from one question of a look-up to the next.
	askAgain = 2 * time.Second

	// stale is how much older than the newest notice of its author one may be: notices
	// overtake each other, but what is older is a replay.
	stale = 30 * time.Second

	// maxLife is how long an announcement is believed, whatever it says; sweepEvery is
	// from one time that those are dropped which nobody believes any more to the next.
	maxLife    = time.Hour
	sweepEvery = maxLife / 6
)

// Config says how a Router behaves. Every zero value works.
type Config struct {
	// Validator judges values. Nil: Put and Search return routing.ErrNamespace.
	Validator routing.Validator

	// Discovery says how peers are discovered. Its Logger is of no use here.
	Discovery DiscoveryConfig

	// Patience is how long a look-up waits for a further answer. Zero: 3 seconds.
	Patience time.Duration

	// Republish is from one time that this host says what it provides, and publishes
	// its values, to the next. Zero: 10 minutes. Others believe it three times as long.
	Republish time.Duration

	// MaxProvided is how many keys this host provides, MaxRecords how many it has or
	// follows values of. Zero: 65536 and 1024.
	MaxProvided int
	MaxRecords  int

	// MaxProviders is how many announcements of others are remembered, KeysPerPeer how
	// many of one peer, MaxAuthors of how many peers it is known what they said last.
	// Zero: 16384, 1024 and 4096.
	MaxProviders int
	KeysPerPeer  int
	MaxAuthors   int

	// MaxValue bounds a value, in bytes. Zero: 10 KiB, which is what an IPNS record may have.
	MaxValue int

	// OwnFetch leaves the fetch protocol to the caller, who serves [Router.Lookup] there
	// beside others.
	OwnFetch bool

	// Logger hears, at Debug, of what fails. Nil: nobody does.
	Logger *slog.Logger
}

func (c *Config) defaults() error {
	for _, f := range []struct {
		name string
		v    *int
		def  int
	}{
		{"MaxProvided", &c.MaxProvided, 65536}, {"MaxRecords", &c.MaxRecords, 1024},
		{"MaxProviders", &c.MaxProviders, 16384}, {"KeysPerPeer", &c.KeysPerPeer, 1024},
		{"MaxAuthors", &c.MaxAuthors, 4096}, {"MaxValue", &c.MaxValue, 10 << 10},
	} {
		if *f.v < 0 {
			return fmt.Errorf("gossip: Config.%s is negative: %d", f.name, *f.v)
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	if c.Patience < 0 || c.Republish < 0 {
		return fmt.Errorf("gossip: Config.Patience or Config.Republish is negative: %v, %v", c.Patience, c.Republish)
	}
	if c.Patience == 0 {
		c.Patience = 3 * time.Second
	}
	if c.Republish == 0 {
		c.Republish = 10 * time.Minute
	}
	if c.Validator == nil {
		c.Validator = routing.Namespaces{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Discovery.Logger = c.Logger
	return nil
}

// Router is a routing.Router.
//
// It has a goroutine that says what is to be said, one that follows the host, those of
// its Discovery, one for each key whose values it follows, and those that ask
// others for them, of which there are few. mu is not held while
// anything else is called.
type Router struct {
	// Fixed.
	h         *plexus.Host
	ps        *pubsub.PubSub
	cfg       Config
	discovery *Discovery
	topic     *pubsub.Topic
	ctx       context.Context
	stop      context.CancelFunc
	wg        sync.WaitGroup
	seq       peer.Sequence
	wake      chan struct{} // holds an element when there is something to say
	asking    chan struct{} // tokens of requests for values
	joining   sync.Mutex    // comes before mu; held while a topic is joined

	mu        sync.Mutex
	closed    bool
	provided  map[string]*provided
	want      map[string]bool // to be said, and so
	have      map[string]bool
	gone      map[string]bool
	providers *table[claim, announced]
	byKey     map[string]map[peer.ID]bool // of providers
	authors   *table[peer.ID, author]
	lookups   map[*lookup]bool
	records   map[string]*record
}

// provided is a key that this host provides.
type provided struct {
	said    time.Time // last
	asked   bool      // by Provide
	records int       // that have it as their meeting point
}

// A claim is that a peer provides a key.
type claim struct {
	key string
	by  peer.ID
}

// announced is when a claim was made, and until when it holds. A withdrawn one is kept
// until then, so that a replay does not bring it back.
type announced struct {
	seq   uint64
	until time.Time
	gone  bool
}

// author is what is known of somebody who speaks in Topic.
type author struct {
	info   peer.AddrInfo
	record uint64 // its sequence number
	seq    uint64 // of its newest notice
	tokens float64
	last   time.Time
}

// A lookup waits for providers of a key.
type lookup struct {
	key   string
	found chan peer.ID // has room for all that are found while it is not read, and else loses them
}

// New makes a router on h and ps, that runs until Close is called or h closes. It
// serves fetch on h. The error says what is wrong with cfg, or that a topic is joined
// already.
func New(h *plexus.Host, ps *pubsub.PubSub, cfg Config) (*Router, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	r := &Router{
		h: h, ps: ps, cfg: cfg,
		wake:     make(chan struct{}, 1),
		asking:   make(chan struct{}, askAtOnce),
		provided: make(map[string]*provided),
		want:     make(map[string]bool), have: make(map[string]bool), gone: make(map[string]bool),
		providers: newTable[claim, announced](cfg.MaxProviders, cfg.KeysPerPeer),
		byKey:     make(map[string]map[peer.ID]bool),
		authors:   newTable[peer.ID, author](cfg.MaxAuthors, (cfg.MaxAuthors+1)/2),
		lookups:   make(map[*lookup]bool),
		records:   make(map[string]*record),
	}
	r.providers.dropped = r.forgot
	r.ctx, r.stop = context.WithCancel(context.Background())
	// A peer provides its own ID.
	r.provided[string(h.ID())] = &provided{asked: true}
	var err error
	if r.discovery, err = Discover(h, ps, cfg.Discovery); err != nil {
		return nil, err
	}
	r.topic, err = ps.Join(Topic, pubsub.TopicConfig{
		Policy:    pubsub.StrictSign,
		Validator: &pubsub.Validator{Check: r.check, Inline: true},
	})
	if err != nil {
		r.discovery.Close()
		return nil, err
	}
	r.topic.Relay()
	if !cfg.OwnFetch {
		fetch.Serve(h, r.Lookup)
	}
	r.wg.Go(r.run) // ends with r.ctx
	context.AfterFunc(r.ctx, r.close)
	go follow(r.ctx, h, r.stop) // ends with r.ctx
	return r, nil
}

// close ends what r does, but waits for nothing.
func (r *Router) close() {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	records := r.records
	r.records = make(map[string]*record)
	r.mu.Unlock()
	r.stop()
	if !first {
		return
	}
	for _, rec := range records {
		rec.close()
	}
	r.topic.Close()
	if !r.cfg.OwnFetch {
		r.h.Unhandle(fetch.Protocol)
	}
	r.discovery.close()
}

// Close ends r and its Discovery. Others are not told: what they know expires.
func (r *Router) Close() error {
	r.close()
	r.wg.Wait()
	return r.discovery.Close()
}

// Discovery is how r hears of peers.
func (r *Router) Discovery() *Discovery { return r.discovery }

// Provide implements routing.Content.
func (r *Router) Provide(ctx context.Context, key multihash.Multihash) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return r.provide(string(key), true)
}

// provide provides a key because it was asked for, or for a record.
func (r *Router) provide(key string, asked bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fail("provide", plexus.ErrClosed)
	}
	p := r.provided[key]
	if p == nil {
		if len(r.provided) >= r.cfg.MaxProvided {
			return fail("provide", fmt.Errorf("%w: MaxProvided", plexus.ErrLimit))
		}
		p = new(provided)
		r.provided[key] = p
	}
	if asked {
		p.asked = true
	} else {
		p.records++
	}
	r.have[key] = true
	delete(r.gone, key)
	kick(r.wake)
	return nil
}

// Withdraw implements routing.Content.
func (r *Router) Withdraw(ctx context.Context, key multihash.Multihash) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if string(key) == string(r.h.ID()) {
		return nil
	}
	r.withdraw(string(key), true)
	return nil
}

func (r *Router) withdraw(key string, asked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.provided[key]
	if p == nil || r.closed {
		return
	}
	if asked {
		p.asked = false
	} else {
		p.records--
	}
	if p.asked || p.records > 0 {
		return
	}
	delete(r.provided, key)
	delete(r.have, key)
	r.gone[key] = true
	kick(r.wake)
}

// FindProviders implements routing.Content.
func (r *Router) FindProviders(ctx context.Context, key multihash.Multihash) iter.Seq2[peer.AddrInfo, error] {
	return func(yield func(peer.AddrInfo, error) bool) {
		if err := checkKey(key); err != nil {
			yield(peer.AddrInfo{}, err)
			return
		}
		l := &lookup{key: string(key), found: make(chan peer.ID, 256)}
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			yield(peer.AddrInfo{}, fail("find providers", plexus.ErrClosed))
			return
		}
		known := r.knownLocked(l.key, time.Now())
		r.lookups[l] = true
		r.askLocked(l.key)
		r.mu.Unlock()
		defer func() {
			r.mu.Lock()
			delete(r.lookups, l)
			r.mu.Unlock()
		}()
		told := map[peer.ID]bool{r.h.ID(): true}
		tell := func(id peer.ID) bool {
			if told[id] {
				return true
			}
			told[id] = true
			return yield(r.whereIs(id), nil)
		}
		for _, id := range known {
			if !tell(id) {
				return
			}
		}
		enough := time.NewTimer(r.cfg.Patience)
		defer enough.Stop()
		again := time.NewTicker(askAgain)
		defer again.Stop()
		for {
			select {
			case id := <-l.found:
				if !told[id] {
					enough.Reset(r.cfg.Patience)
				}
				if !tell(id) {
					return
				}
			case <-again.C:
				r.mu.Lock()
				r.askLocked(l.key)
				r.mu.Unlock()
			case <-enough.C:
				return
			case <-ctx.Done():
				yield(peer.AddrInfo{}, context.Cause(ctx))
				return
			case <-r.ctx.Done():
				yield(peer.AddrInfo{}, fail("find providers", plexus.ErrClosed))
				return
			}
		}
	}
}

// FindPeer implements routing.Peers. It believes what a peer said lately, and else asks.
func (r *Router) FindPeer(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
	if err := ctx.Err(); err != nil {
		return peer.AddrInfo{}, context.Cause(ctx)
	}
	if id == r.h.ID() {
		return r.h.Info(), nil
	}
	if err := id.Validate(); err != nil {
		return peer.AddrInfo{}, err
	}
	if i, ok := r.discovery.find(id); ok {
		return i, nil
	}
	for i, err := range r.FindProviders(ctx, multihash.Multihash(id)) {
		if err != nil {
			return peer.AddrInfo{}, err
		}
		if i.ID == id && len(i.Addrs) > 0 {
			return i, nil
		}
	}
	return peer.AddrInfo{}, fmt.Errorf("%w: peer %s", routing.ErrNotFound, id)
}

// whereIs returns what is known of where a provider is.
func (r *Router) whereIs(id peer.ID) peer.AddrInfo {
	r.mu.Lock()
	a := r.authors.get(id)
	var i peer.AddrInfo
	if a != nil {
		i = a.info
	}
	r.mu.Unlock()
	if len(i.Addrs) == 0 {
		i = peer.AddrInfo{ID: id, Addrs: r.h.Peers().Addrs(id)}
	}
	return i
}

// knownLocked lists who provides a key, as far as it was heard. What has expired of
// that is dropped.
func (r *Router) knownLocked(key string, now time.Time) []peer.ID {
	var ids []peer.ID
	for id := range r.byKey[key] {
		switch a := r.providers.get(claim{key, id}); {
		case !now.Before(a.until):
			r.providers.evict(claim{key, id})
		case !a.gone:
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// sweep drops announcements that have expired, the withdrawn ones among them.
func (r *Router) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.providers.each(func(c claim, a *announced) bool {
		if !now.Before(a.until) {
			r.providers.evict(c)
		}
		return true
	})
}

// forgot hears of announcements that have been dropped.
func (r *Router) forgot(c claim) {
	delete(r.byKey[c.key], c.by)
	if len(r.byKey[c.key]) == 0 {
		delete(r.byKey, c.key)
	}
}

func (r *Router) askLocked(key string) {
	r.want[key] = true
	kick(r.wake)
}

// check judges a notice, and notes what it says.
func (r *Router) check(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.Outcome {
	if m.From == r.h.ID() {
		return pubsub.Accepted
	}
	var n notice
	if n.parse(m.Data) != nil {
		return pubsub.Rejected
	}
	var rec peer.Record
	if len(n.record) > 0 {
		var err error
		// "If the public key in the envelope cannot derive the peer id contained in the
		// routing state record, the RoutingState MUST be discarded": and so is a record
		// that is somebody else's than the notice.
		if rec, err = peer.OpenRecord(n.record); err != nil || rec.ID != m.From {
			return pubsub.Rejected
		}
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return pubsub.Ignored
	}
	a := r.authors.touch(m.From, from)
	if !a.mayLocked(now) || n.seq == a.seq || n.seq < a.seq && a.seq-n.seq > uint64(stale) {
		return pubsub.Ignored
	}
	a.seq = max(a.seq, n.seq)
	if a.info.ID = m.From; rec.Seq > a.record {
		a.info.Addrs, a.record = rec.Addrs, rec.Seq
	}
	r.hearLocked(now, m.From, &n)
	return pubsub.Accepted
}

// mayLocked counts a notice of a, and reports whether it is not one too many.
func (a *author) mayLocked(now time.Time) bool {
	if a.last.IsZero() {
		a.tokens = authorBurst
	} else {
		a.tokens = min(authorBurst, a.tokens+now.Sub(a.last).Seconds()*authorRate)
	}
	a.last = now
	if a.tokens < 1 {
		return false
	}
	a.tokens--
	return true
}

// hearLocked notes what a notice says.
func (r *Router) hearLocked(now time.Time, from peer.ID, n *notice) {
	until := now.Add(maxLife)
	if n.expires < uint64(until.Unix()) {
		until = time.Unix(int64(n.expires), 0)
	}
	for _, k := range n.have {
		if !now.Before(until) {
			break // it has expired
		}
		c := claim{k, from}
		if old := r.providers.get(c); old != nil && old.seq >= n.seq {
			continue
		}
		*r.providers.touch(c, from) = announced{seq: n.seq, until: until}
		if r.byKey[k] == nil {
			r.byKey[k] = make(map[peer.ID]bool)
		}
		r.byKey[k][from] = true
		for l := range r.lookups {
			if l.key == k {
				select {
				case l.found <- from:
				default: // it does not read, and asks again
				}
			}
		}
	}
	for _, k := range n.gone {
		if old := r.providers.get(claim{k, from}); old != nil && old.seq < n.seq {
			old.seq, old.gone = n.seq, true
		}
	}
	for _, k := range n.want {
		if p := r.provided[k]; p != nil && now.Sub(p.said) >= quiet {
			r.have[k] = true
			kick(r.wake)
		}
	}
}

// run says what is to be said: at once where it has been quiet, and else in some time,
// all together.
func (r *Router) run() {
	again := time.NewTicker(r.cfg.Republish)
	defer again.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-r.ctx.Done():
			return
		}
		for !r.say() {
			select {
			case <-r.wake:
			case <-again.C:
				r.repeat()
			case now := <-sweep.C:
				r.sweep(now)
			case <-r.ctx.Done():
				return
			}
		}
		pause.Reset(spacing)
	}
}

// repeat lets everything be said anew.
func (r *Router) repeat() {
	r.mu.Lock()
	for k := range r.provided {
		r.have[k] = true
	}
	var values []*record
	for _, rec := range r.records {
		if rec.value != nil {
			values = append(values, rec)
		}
	}
	r.mu.Unlock()
	r.begin(func() { // ends when all are published; each takes at most publishTimeout
		for _, rec := range values {
			r.publish(rec)
		}
	})
}

// begin runs f unless r is closed.
func (r *Router) begin(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.wg.Go(f)
	}
}

// publishTimeout is how long neighbours have to take a message.
const publishTimeout = 10 * time.Second

// say publishes a notice with some of what is to be said. It returns false if that is
// nothing.
func (r *Router) say() bool {
	now := time.Now()
	n := notice{seq: r.seq.Next(now)}
	r.mu.Lock()
	n.want = some(r.want, maxWant)
	n.have = some(r.have, noticeKeys)
	n.gone = some(r.gone, noticeKeys)
	for _, k := range n.have {
		if p := r.provided[k]; p != nil {
			p.said = now
		}
	}
	r.mu.Unlock()
	if len(n.want)+len(n.have)+len(n.gone) == 0 {
		return false
	}
	if len(n.have) > 0 {
		n.expires = uint64(now.Add(min(3*r.cfg.Republish, maxLife)).Unix())
		addrs := r.h.Addrs()
		rec, err := peer.Record{ID: r.h.ID(), Seq: n.seq, Addrs: addrs[:min(len(addrs), peer.MaxRecordAddrs)]}.Seal(r.h.Key())
		if err != nil {
			r.cfg.Logger.Debug("no record of this host's addresses", "err", err)
		}
		n.record = rec
	}
	ctx, cancel := context.WithTimeout(r.ctx, publishTimeout)
	defer cancel()
	if _, err := r.topic.Publish(ctx, n.append(nil)); err != nil && !errors.Is(err, pubsub.ErrNoPeers) {
		r.cfg.Logger.Debug("cannot speak in the topic", "topic", Topic, "err", err)
	}
	return true
}

// some takes up to n keys out of a set, and of those that are ever so long fewer.
func some(set map[string]bool, n int) (keys []string) {
	bytes := 0
	for k := range set {
		if bytes += len(k) + 4; len(keys) == n || bytes > maxNotice/4 {
			break
		}
		keys = append(keys, k)
		delete(set, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}

package gossip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/fetch"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/routing"
	"github.com/plexus-p2p/plexus/routing/routingtest"
	"github.com/plexus-p2p/plexus/simnet"
)

// A liar is a host with pubsub that says what it likes.
type liar struct {
	t  *testing.T
	h  *plexus.Host
	ps *pubsub.PubSub
}

// liars makes a Router and n liars, connected to it.
func liars(t *testing.T, cfg Config, n int) (*Router, []*liar) {
	t.Helper()
	sim := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond}})
	t.Cleanup(sim.Close)
	cfg.Validator = routingtest.Numbers{}
	h := plexustest.SimHost(t, sim.Host("10.0.0.1"))
	r := start(t, h, floodsub.New(), cfg)
	var all []*liar
	for i := range n {
		l := &liar{t: t, h: plexustest.SimHost(t, sim.Host(fmt.Sprintf("10.0.1.%d", i+1)))}
		var err error
		if l.ps, err = pubsub.New(l.h, floodsub.New(), pubsub.Config{}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.h.Dial(t.Context(), h.Info()); err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	time.Sleep(time.Second)
	return r, all
}

// says publishes to a topic.
func (l *liar) says(topic string, data []byte) {
	l.t.Helper()
	t, err := l.ps.Join(topic, pubsub.TopicConfig{})
	if err == nil {
		defer t.Close()
		_, err = t.Publish(l.t.Context(), data)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
}

func (l *liar) notice(n notice) {
	l.t.Helper()
	l.says(Topic, n.append(nil))
}

func (l *liar) record(seq uint64, addr string) []byte {
	l.t.Helper()
	b, err := peer.Record{ID: l.h.ID(), Seq: seq, Addrs: []ma.Multiaddr{ma.StringCast(addr)}}.Seal(l.h.Key())
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// outcome is what r counts of a message: "" if it is accepted.
func outcome(r *Router, f func()) string {
	before := r.ps.Stats().Dropped
	f()
	var what []string
	for reason, n := range r.ps.Stats().Dropped {
		if n > before[reason] {
			what = append(what, reason.String())
		}
	}
	slices.Sort(what)
	return fmt.Sprint(what)
}

const (
	accepted = "[]"
	rejected = "[invalid message]"
	ignored  = "[ignored message]"
)

func (r *Router) knows(key multihash.Multihash) []peer.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.knownLocked(string(key), time.Now())
}

// Nobody provides for another, says where another is, or brings back what was withdrawn.
func TestForgedNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := liars(t, Config{}, 2)
		a, b := l[0], l[1]
		key := routingtest.Sum("what")
		seq := uint64(time.Now().UnixNano())
		later := uint64(time.Now().Add(10 * time.Minute).Unix())
		have := func(seq, expires uint64, rec []byte) notice {
			return notice{have: []string{string(key)}, seq: seq, expires: expires, record: rec}
		}
		step := func(name string, who *liar, n notice, want string, providers ...peer.ID) {
			t.Helper()
			if got := outcome(r, func() { who.notice(n) }); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
			slices.Sort(providers)
			if got := r.knows(key); !slices.Equal(got, providers) {
				t.Errorf("%s: providers %v, want %v", name, got, providers)
			}
		}
		step("the record of another", a, have(seq, later, b.record(1, "/ip4/192.0.2.1/tcp/1")), rejected)
		step("a record that is none", a, have(seq, later, []byte("rubbish")), rejected)
		step("already expired", a, have(seq, uint64(time.Now().Unix()-1), nil), accepted)
		step("without an end", a, have(seq+1, 0, nil), accepted)
		step("good", a, have(seq+2, later, a.record(5, "/ip4/192.0.2.1/tcp/5")), accepted, a.h.ID())
		step("the same once more", a, have(seq+2, later, nil), ignored, a.h.ID())
		step("an older record", a, have(seq+3, later, a.record(4, "/ip4/192.0.2.1/tcp/4")), accepted, a.h.ID())
		if i := r.whereIs(a.h.ID()); len(i.Addrs) != 1 || i.Addrs[0].String() != "/ip4/192.0.2.1/tcp/5" {
			t.Errorf("it is at %v", i)
		}
		step("another withdraws", b, notice{gone: []string{string(key)}, seq: seq + 100}, accepted, a.h.ID())
		step("withdrawn", a, notice{gone: []string{string(key)}, seq: seq + 10}, accepted)
		step("overtaken", a, have(seq+4, later, nil), accepted)
		step("a replay", a, have(seq+10-uint64(stale)-1, later, nil), ignored)
		step("again", a, have(seq+11, later, nil), accepted, a.h.ID())
		step("for ever", b, have(seq+101, 1<<62, nil), accepted, a.h.ID(), b.h.ID())
		time.Sleep(11 * time.Minute)
		step("it ends", a, notice{seq: seq + 12}, accepted, b.h.ID())
		time.Sleep(maxLife)
		step("nothing lasts for ever", a, notice{seq: seq + 13}, accepted)
	})
}

// An author who says too much is not passed on, and others are.
func TestAuthorRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := liars(t, Config{}, 2)
		topic, err := l[0].ps.Join(Topic, pubsub.TopicConfig{})
		if err != nil {
			t.Fatal(err)
		}
		const messages = 200
		for i := range messages {
			n := notice{want: []string{string(routingtest.Sum("x"))}, seq: uint64(i + 1)}
			if _, err := topic.Publish(t.Context(), n.append(nil)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(100 * time.Millisecond)
		if got := r.ps.Stats().Dropped[pubsub.IgnoredMessage]; got != messages-authorBurst {
			t.Errorf("%d of %d notices were ignored", got, messages)
		}
		if got := outcome(r, func() { l[1].notice(notice{seq: 1}) }); got != accepted {
			t.Errorf("another's: %s", got)
		}
		time.Sleep(10 * time.Second)
		if got := outcome(r, func() { topic.Close(); l[0].notice(notice{seq: 1000}) }); got != accepted {
			t.Errorf("later: %s", got)
		}
	})
}

// What others say is kept within bounds, and one alone does not take all of them.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{MaxProviders: 40, KeysPerPeer: 30, MaxAuthors: 4, Discovery: DiscoveryConfig{MaxPeers: 4}}
		r, l := liars(t, cfg, 8)
		later := uint64(time.Now().Add(time.Hour).Unix())
		mine := string(routingtest.Sum("mine"))
		l[1].notice(notice{have: []string{mine}, seq: 1, expires: later})
		var keys []string
		for i := range 100 {
			keys = append(keys, string(routingtest.Sum(fmt.Sprint(i))))
		}
		l[0].notice(notice{have: keys, seq: 1, expires: later})
		if got := r.knows([]byte(mine)); len(got) != 1 {
			t.Errorf("one has driven out another: %v", got)
		}
		for _, x := range l[2:] {
			x.notice(notice{have: keys[:20], seq: 1, expires: later})
			x.says(DiscoveryTopic, beacon{key: x.h.Key().Public(), addrs: x.h.Addrs()}.append(nil))
		}
		r.discovery.mu.Lock()
		if n := len(r.discovery.peers.by); n != 4 {
			t.Errorf("%d peers are kept", n)
		}
		r.discovery.mu.Unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		claims := 0
		for _, m := range r.byKey {
			claims += len(m)
		}
		if n := len(r.providers.by); n != 40 || claims != n {
			t.Errorf("%d announcements are kept, %d by key", n, claims)
		}
		if n := len(r.authors.by); n != 4 {
			t.Errorf("%d authors are kept", n)
		}
	})
}

// What has expired is not kept: a look-up drops what it finds, time the rest.
func TestExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := liars(t, Config{Republish: 24 * time.Hour}, 1)
		kept := func() (claims, byKey int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, m := range r.byKey {
				byKey += len(m)
			}
			return len(r.providers.by), byKey
		}
		want := func(when string, n int) {
			t.Helper()
			if claims, byKey := kept(); claims != n || byKey != n {
				t.Errorf("%s: %d announcements are kept, %d by key; want %d", when, claims, byKey, n)
			}
		}
		key := func(name string) string { return string(routingtest.Sum(name)) }
		in := func(d time.Duration) uint64 { return uint64(time.Now().Add(d).Unix()) }
		l[0].notice(notice{have: []string{key("a"), key("b"), key("c")}, seq: 1, expires: in(time.Minute)})
		l[0].notice(notice{have: []string{key("d")}, seq: 2, expires: in(time.Hour)})
		l[0].notice(notice{gone: []string{key("c")}, seq: 3})
		want("at first", 4)
		time.Sleep(2 * time.Minute)
		if got := r.knows([]byte(key("a"))); len(got) != 0 {
			t.Errorf("expired, but known: %v", got)
		}
		want("after a look-up", 3)
		time.Sleep(sweepEvery)
		want("after some time", 1)
		if got := r.knows([]byte(key("d"))); len(got) != 1 {
			t.Errorf("not expired, but not known: %v", got)
		}
		time.Sleep(time.Hour)
		want("in the end", 0)
	})
}

// This host provides, and follows, so many keys; what it does not need any more makes
// room.
func TestOwnBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := liars(t, Config{MaxProvided: 8, MaxRecords: 3, MaxValue: 100, Patience: time.Second}, 1)
		until := time.Now().Add(time.Hour)
		key := func(i int) string { return routingtest.Prefix + fmt.Sprint(i) }
		if err := r.Put(t.Context(), key(0), routingtest.Value(1, until)); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < 10; i++ {
			if _, err := routing.Get(t.Context(), r, key(i)); !errors.Is(err, routing.ErrNotFound) {
				t.Errorf("search %d: %v", i, err)
			}
		}
		r.mu.Lock()
		got := slices.Sorted(maps.Keys(r.records))
		r.mu.Unlock()
		if !slices.Equal(got, []string{key(0), key(8), key(9)}) {
			t.Errorf("followed: %q", got)
		}
		for _, i := range []int{8, 9} {
			if err := r.Put(t.Context(), key(i), routingtest.Value(1, until)); err != nil {
				t.Error(err)
			}
		}
		if err := r.Put(t.Context(), key(1), routingtest.Value(1, until)); !errors.Is(err, plexus.ErrLimit) {
			t.Errorf("one too many: %v", err)
		}
		r.Forget(key(8))
		if err := r.Put(t.Context(), key(1), routingtest.Value(1, until)); err != nil {
			t.Errorf("after Forget: %v", err)
		}
		if err := r.Put(t.Context(), key(1), make([]byte, 101)); !errors.Is(err, routing.ErrInvalid) {
			t.Errorf("a large value: %v", err)
		}
		// Its ID and three values are provided.
		for i := range 4 {
			if err := r.Provide(t.Context(), routingtest.Sum(fmt.Sprint(i))); err != nil {
				t.Errorf("key %d: %v", i, err)
			}
		}
		if err := r.Provide(t.Context(), routingtest.Sum("more")); !errors.Is(err, plexus.ErrLimit) {
			t.Errorf("one key too many: %v", err)
		}
	})
}

// Values that must not stand are neither kept nor passed on, by which way they come.
func TestForgedValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := liars(t, Config{MaxValue: 100}, 2)
		key := routingtest.Prefix + "a"
		// go-libp2p-pubsub-router's topic of that key.
		const topic = "/record/L251bWJlcnMvYQ"
		now := time.Now()
		if err := r.Put(t.Context(), key, routingtest.Value(5, now.Add(time.Hour))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for _, tt := range []struct {
			name  string
			value []byte
			want  string
		}{
			{"no value", []byte("rubbish"), rejected},
			{"nothing", nil, rejected},
			{"too large", make([]byte, 101), rejected},
			{"expired", routingtest.Value(9, now.Add(-time.Hour)), ignored},
			{"older: a replay", routingtest.Value(4, now.Add(time.Hour)), ignored},
			{"the same", routingtest.Value(5, now.Add(time.Hour)), ignored},
			{"newer", routingtest.Value(6, now.Add(time.Hour)), accepted},
		} {
			if got := outcome(r, func() { l[0].says(topic, tt.value) }); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
			}
		}
		if v, err := fetch.Fetch(t.Context(), l[0].h, r.h.ID(), key); err != nil || string(v) != string(routingtest.Value(6, now.Add(time.Hour))) {
			t.Errorf("fetched %q, %v", v, err)
		}
		if _, err := fetch.Fetch(t.Context(), l[0].h, r.h.ID(), routingtest.Prefix+"b"); !errors.Is(err, fetch.ErrNotFound) {
			t.Errorf("another key: %v", err)
		}
		// By fetch, from a neighbour in the topic.
		for i, v := range [][]byte{[]byte("rubbish"), make([]byte, 101), routingtest.Value(9, now.Add(-time.Hour)), routingtest.Value(2, now.Add(time.Hour))} {
			asked := make(chan bool, 1)
			x := l[1]
			fetch.Serve(x.h, func(context.Context, string) ([]byte, error) {
				asked <- true
				return v, nil
			})
			sub, err := x.ps.Join(topic, pubsub.TopicConfig{})
			if err != nil {
				t.Fatal(err)
			}
			stop := sub.Relay()
			<-asked
			time.Sleep(time.Second)
			if v, err := r.Lookup(t.Context(), key); err != nil || string(v) != string(routingtest.Value(6, now.Add(time.Hour))) {
				t.Errorf("fetch %d: %q, %v", i, v, err)
			}
			stop()
			sub.Close()
			x.h.Unhandle(fetch.Protocol)
			time.Sleep(time.Second)
		}
	})
}

// A beacon is its author's own. Peers that it discovers are connected to, as far as
// that is wanted.
func TestDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond}})
		defer sim.Close()
		var hosts []*plexus.Host
		var found []chan peer.AddrInfo
		var all []*Discovery
		for i := range 5 {
			h := plexustest.SimHost(t, sim.Host(fmt.Sprintf("10.0.0.%d", i+1)))
			ps, err := pubsub.New(h, floodsub.New(), pubsub.Config{})
			if err != nil {
				t.Fatal(err)
			}
			c := make(chan peer.AddrInfo, 100)
			d, err := Discover(h, ps, DiscoveryConfig{Connect: 3 * (i / 4), ListenOnly: i == 3, Found: func(p peer.AddrInfo) { c <- p }})
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				if _, err := h.Dial(t.Context(), hosts[i-1].Info()); err != nil {
					t.Fatal(err)
				}
			}
			hosts, found, all = append(hosts, h), append(found, c), append(all, d)
		}
		time.Sleep(time.Minute)
		for i, d := range all {
			n := len(slices.Collect(d.Peers()))
			want := 3 // all but itself, and the silent one
			if i == 3 {
				want = 4
			}
			if n != want || len(found[i]) != want {
				t.Errorf("host %d has heard of %d, and was told of %d; want %d", i, n, len(found[i]), want)
			}
		}
		for i, want := range []int{1, 2, 2, 2, 3} {
			if n := len(slices.Collect(hosts[i].Conns())); i == 4 && n != want || n < want {
				t.Errorf("host %d has %d connections, want %d", i, n, want)
			}
		}
		for _, d := range all {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r, l := liars(t, Config{}, 2)
		forged := beacon{key: l[1].h.Key().Public(), addrs: l[0].h.Addrs()}.append(nil)
		if got := outcome(r, func() { l[0].says(DiscoveryTopic, forged) }); got != rejected {
			t.Errorf("the beacon of another: %s", got)
		}
		if got := outcome(r, func() { l[0].says(DiscoveryTopic, []byte("rubbish")) }); got != rejected {
			t.Errorf("rubbish: %s", got)
		}
		good := beacon{key: l[0].h.Key().Public(), addrs: l[0].h.Addrs()}.append(nil)
		if got := outcome(r, func() { l[0].says(DiscoveryTopic, good) }); got != accepted {
			t.Errorf("its own: %s", got)
		}
		if got := outcome(r, func() { l[0].says(DiscoveryTopic, good) }); got != ignored {
			t.Errorf("the same at once: %s", got)
		}
	})
}

func TestConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := liars(t, Config{}, 1)
		for _, cfg := range []Config{{MaxValue: -1}, {Patience: -1}, {Discovery: DiscoveryConfig{Interval: -1}}} {
			if _, err := New(l[0].h, l[0].ps, cfg); err == nil {
				t.Errorf("%+v: no error", cfg)
			}
		}
		if _, err := New(r.h, r.ps, Config{OwnFetch: true}); err == nil {
			t.Error("two routers on one pubsub")
		}
		// After the failures, nothing is left joined.
		again, err := New(l[0].h, l[0].ps, Config{OwnFetch: true})
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(l[0].h.Protocols(), fetch.Protocol) {
			t.Error("it serves fetch")
		}
		again.Close()
		if got := l[0].ps.Topics(); len(got) != 0 {
			t.Errorf("after Close it is in %v", got)
		}
		if err := again.Provide(t.Context(), routingtest.Sum("x")); !errors.Is(err, plexus.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		for _, err := range again.FindProviders(t.Context(), routingtest.Sum("x")) {
			if !errors.Is(err, plexus.ErrClosed) {
				t.Errorf("closed: %v", err)
			}
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
		// The end of a host is the end of its router.
		r.h.Close()
		synctest.Wait()
		if err := r.Put(t.Context(), routingtest.Prefix, routingtest.Value(1, time.Now().Add(time.Hour))); !errors.Is(err, plexus.ErrClosed) {
			t.Errorf("the host is closed: %v", err)
		}
	})
}

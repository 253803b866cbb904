package pubsub_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/pubsub/pubsubtest"
	"github.com/plexus-p2p/plexus/transport/memory"
)

func gossips() pubsub.Router { return gossipsub.Must(gossipsub.Default()) }

// A stranger is a host that writes what it likes to a node with pubsub.
type stranger struct {
	t *testing.T
	h *plexus.Host
	c *plexus.Conn
	s *plexus.Stream
}

// withStranger runs f in a bubble with a node that is subscribed to "topic", and a stranger.
func withStranger(t *testing.T, router func() pubsub.Router, cfg pubsub.Config, f func(t *testing.T, n *pubsubtest.Node, x *stranger)) {
	synctest.Test(t, func(t *testing.T) {
		net := pubsubtest.New(t, 1, router, func(int) pubsub.Config { return cfg })
		net.Join("topic", pubsub.TopicConfig{})
		h := plexustest.SimHost(t, net.Sim.Host("10.200.0.1"))
		for _, p := range []string{"/meshsub/1.1.0", "/floodsub/1.0.0"} {
			h.Handle(p, func(_ context.Context, s *plexus.Stream) error {
				_, err := io.Copy(io.Discard, s)
				return err
			})
		}
		c, err := h.Dial(t.Context(), net.Nodes[0].Host.Info())
		if err != nil {
			t.Fatal(err)
		}
		x := &stranger{t: t, h: h, c: c}
		x.open()
		f(t, net.Nodes[0], x)
	})
}

func (x *stranger) open() {
	x.t.Helper()
	var err error
	if x.s, err = x.c.Open(x.t.Context(), "/meshsub/1.1.0", "/floodsub/1.0.0"); err != nil {
		x.t.Fatal(err)
	}
}

func (x *stranger) say(r *pubsub.RPC) { x.raw(delimited(r.Append(nil))) }

func (x *stranger) raw(b []byte) {
	x.t.Helper()
	if _, err := x.s.Write(b); err != nil {
		x.t.Fatal(err)
	}
	time.Sleep(time.Second)
}

func delimited(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// wantReset checks that the stream, and nothing but it, is lost.
func (x *stranger) wantReset() {
	x.t.Helper()
	var b [1]byte
	x.s.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(x.s, b[:]); err == nil || errors.Is(err, io.EOF) {
		x.t.Errorf("reading: %v, want a reset", err)
	}
	x.open()
}

// What is no RPC, or too long, costs its sender the stream.
func TestBadRPC(t *testing.T) {
	withStranger(t, floods, pubsub.Config{MaxMessage: 2000}, func(t *testing.T, n *pubsubtest.Node, x *stranger) {
		for name, b := range map[string][]byte{
			"too long":            binary.AppendUvarint(nil, 2001),
			"no length":           []byte(strings.Repeat("\xff", 10)),
			"no RPC":              delimited([]byte("\x0a\xff")),
			"too many items":      delimited((&pubsub.RPC{Subs: make([]pubsub.SubOpts, 1)}).Append(nil)[:1]),
			"no message":          delimited((&pubsub.RPC{Messages: [][]byte{[]byte("\x12\x05")}}).Append(nil)),
			"a field that is cut": delimited([]byte("\x1a\x05\x0a")),
		} {
			t.Log(name)
			x.raw(b)
			x.wantReset()
		}
		m := pubsub.NewMessage("topic", make([]byte, 1500))
		x.say(&pubsub.RPC{Messages: [][]byte{m.Append(nil)}}) // unsigned, but not too long
		if d := n.PubSub.Stats().Dropped[pubsub.InvalidSignature]; d != 1 {
			t.Errorf("%v", n.PubSub.Stats().Dropped)
		}
	})
}

// TopicsPerPeer and AllowTopic bound what is noted of a peer.
func TestSubscriptionBounds(t *testing.T) {
	cfg := pubsub.Config{TopicsPerPeer: 3, AllowTopic: func(topic string) bool { return topic != "secret" }}
	withStranger(t, floods, cfg, func(t *testing.T, n *pubsubtest.Node, x *stranger) {
		var subs []pubsub.SubOpts
		for _, name := range []string{"secret", "a", "b", "c", "d"} {
			subs = append(subs, pubsub.SubOpts{Topic: name, Subscribe: true})
		}
		x.say(&pubsub.RPC{Subs: subs})
		d := n.PubSub.Stats().Dropped
		if d[pubsub.SubscriptionNotAllowed] != 1 || d[pubsub.TooManySubscriptions] != 1 || len(n.PubSub.Peers("c")) != 1 || len(n.PubSub.Peers("d")) != 0 {
			t.Errorf("%v; %v and %v are subscribed", d, n.PubSub.Peers("c"), n.PubSub.Peers("d"))
		}
		x.say(&pubsub.RPC{Subs: []pubsub.SubOpts{{Topic: "a"}, {Topic: "d", Subscribe: true}}})
		if len(n.PubSub.Peers("a")) != 0 || len(n.PubSub.Peers("d")) != 1 {
			t.Error("a subscription that ended still counts")
		}
		// Their names count too: three of 256 bytes on average.
		x.say(&pubsub.RPC{Subs: []pubsub.SubOpts{{Topic: "b"}, {Topic: "c"}, {Topic: strings.Repeat("x", 800), Subscribe: true}}})
		if d := n.PubSub.Stats().Dropped; d[pubsub.TooManySubscriptions] != 2 {
			t.Errorf("%v", d)
		}
	})
}

// SeenEntries and SeenTTL bound what is remembered: then a message is new once more.
func TestSeenBounds(t *testing.T) {
	cfg := pubsub.Config{Policy: pubsub.StrictNoSign, SeenEntries: 5, SeenTTL: time.Minute}
	withStranger(t, floods, cfg, func(t *testing.T, n *pubsubtest.Node, x *stranger) {
		say := func(i int) {
			x.say(&pubsub.RPC{Messages: [][]byte{pubsub.NewMessage("topic", []byte{byte(i)}).Append(nil)}})
		}
		for i := range 8 {
			say(i)
			say(i)
		}
		say(0)
		time.Sleep(time.Minute)
		say(7)
		s := n.PubSub.Stats()
		if s.Delivered != 10 || s.Duplicates != 8 || s.Dropped[pubsub.SeenEarly] != 4 {
			t.Errorf("%+v", s)
		}
	})
}

// A Config that cannot be meant is refused, by name; zero is the default.
func TestConfig(t *testing.T) {
	var net memory.Network
	h := plexustest.Host(t, &net)
	check := func(context.Context, peer.ID, *pubsub.Message) pubsub.Outcome { return pubsub.Accepted }
	for field, cfg := range map[string]pubsub.Config{
		"signing policy":                  {Policy: 99},
		"Config.MaxMessage is":            {MaxMessage: 1<<10 - 1},
		"Config.TopicsPerPeer is":         {TopicsPerPeer: -1},
		"Config.OwnQueue is":              {OwnQueue: -1},
		"Config.ForwardQueue is":          {ForwardQueue: -1},
		"Config.SubscriberQueue is":       {SubscriberQueue: -1},
		"Config.Patience is":              {Patience: -1},
		"Config.SeenTTL is too small: -1": {SeenTTL: -1},
		"Config.SeenEntries is":           {SeenEntries: -1},
		"Config.SeenBytes is":             {SeenBytes: -1},
		"without a Check":                 {Validator: &pubsub.Validator{}},
		"Validator.Concurrency is":        {Validator: &pubsub.Validator{Check: check, Concurrency: -1}},
		"Validator.Queue is":              {Validator: &pubsub.Validator{Check: check, Queue: -1}},
		"Validator.Timeout is":            {Validator: &pubsub.Validator{Check: check, Timeout: -1}},
	} {
		ps, err := pubsub.New(h, floods(), cfg)
		if err == nil {
			ps.Close()
		}
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	// No connections for the router, which is a choice.
	ps, err := pubsub.New(h, floods(), pubsub.Config{Connects: -1})
	if err != nil {
		t.Fatal(err)
	}
	ps.Close()
}

// Connects bounds how many peers that others name are dialed at once.
func TestConnects(t *testing.T) {
	withStranger(t, gossips, pubsub.Config{Connects: 3}, func(t *testing.T, n *pubsubtest.Node, x *stranger) {
		p := pubsub.Prune{Topic: "topic"}
		for i := range 10 {
			key, err := peer.GenerateKey(peer.Ed25519)
			if err != nil {
				t.Fatal(err)
			}
			rec := peer.Record{ID: key.ID(), Seq: 1, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/10.201.0.1/tcp/4001")}}
			sealed, err := rec.Seal(key)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				sealed[len(sealed)-1] ^= 1 // dialed by nobody, and no reason to fail
			}
			p.Peers = append(p.Peers, pubsub.PX{ID: key.ID(), Record: sealed})
		}
		x.say(&pubsub.RPC{Control: pubsub.Control{Prune: []pubsub.Prune{p}}})
		if d := n.PubSub.Stats().Dropped[pubsub.PXFull]; d != 7 {
			t.Errorf("%d of 10 were not dialed, want 7", d)
		}
		time.Sleep(2 * time.Minute)
		x.say(&pubsub.RPC{Control: pubsub.Control{Prune: []pubsub.Prune{p}}})
		if d := n.PubSub.Stats().Dropped[pubsub.PXFull]; d != 14 {
			t.Errorf("%d, want 14: dials have ended", d)
		}
	})
}

// "when a peer's score drops below this threshold, the peer is graylisted and its RPCs
// are ignored": also the control messages that come with messages.
func TestGraylisted(t *testing.T) {
	router := func() pubsub.Router {
		cfg := gossipsub.Default()
		cfg.Score = &gossipsub.ScoreParams{
			Thresholds:        gossipsub.Thresholds{Gossip: -1, Publish: -2, Graylist: -3},
			AppSpecific:       func(peer.ID) float64 { return -10 },
			AppSpecificWeight: 1,
		}
		return gossipsub.Must(cfg)
	}
	heard := 0
	cfg := pubsub.Config{Policy: pubsub.StrictNoSign, Trace: func(e pubsub.Event) {
		if _, ok := e.(pubsub.ControlReceived); ok {
			heard++
		}
	}}
	withStranger(t, router, cfg, func(t *testing.T, n *pubsubtest.Node, x *stranger) {
		control := pubsub.Control{Graft: []string{"topic"}}
		raw := [][]byte{pubsub.NewMessage("topic", []byte("x")).Append(nil)}
		for _, r := range []*pubsub.RPC{
			{Messages: raw},
			{Control: control},
			{Messages: raw, Control: control},
			{Messages: [][]byte{pubsub.NewMessage("other", nil).Append(nil)}, Control: control},
			{Subs: []pubsub.SubOpts{{Topic: "topic", Subscribe: true}}, Messages: raw, Control: control},
		} {
			x.say(r)
		}
		s := n.PubSub.Stats()
		if heard != 0 || s.Delivered != 0 || s.Dropped[pubsub.NotAdmitted] != 3 || len(n.PubSub.Peers("topic")) != 1 {
			t.Errorf("%d control messages were handled; %+v", heard, s)
		}
	})
}

// A stream that the peer resets is opened again, and says all anew. While there is nothing
// to write no goroutine is there for it.
func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := pubsubtest.New(t, 1, gossips, func(int) pubsub.Config { return pubsub.Config{} })
		net.Join("topic", pubsub.TopicConfig{})
		h := plexustest.SimHost(t, net.Sim.Host("10.200.0.1"))
		streams := make(chan *plexus.Stream, 10)
		h.Handle("/meshsub/1.1.0", func(ctx context.Context, s *plexus.Stream) error {
			streams <- s
			<-ctx.Done()
			return nil
		})
		if _, err := h.Dial(t.Context(), net.Nodes[0].Host.Info()); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			s := <-streams
			hello := make([]byte, 32)
			n, err := s.Read(hello)
			if err != nil || !strings.Contains(string(hello[:n]), "topic") {
				t.Fatalf("stream %d begins with %q, %v", i, hello[:n], err)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			stacks := make([]byte, 1<<20)
			if stacks = stacks[:runtime.Stack(stacks, true)]; strings.Contains(string(stacks), "(*outbox)") {
				t.Errorf("a goroutine waits for nothing:\n%s", stacks)
			}
			s.Reset(0)
		}
	})
}

// idlePeer is a ceiling in KiB.
const idlePeer = 20

// TestFigureIdlePeer weighs what a neighbour that is subscribed to a topic takes beside its
// connection, while nothing is published: in a bubble, where all that is under way ends.
func TestFigureIdlePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const peers = 50
		var net memory.Network
		var hosts []*plexus.Host
		for range peers + 1 {
			hosts = append(hosts, plexustest.Host(t, &net))
		}
		for _, h := range hosts[1:] {
			if _, err := h.Dial(t.Context(), hosts[0].Info()); err != nil {
				t.Fatal(err)
			}
		}
		weigh := func() float64 {
			time.Sleep(time.Minute)
			synctest.Wait()
			var m runtime.MemStats
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&m)
			return float64(m.HeapAlloc + m.StackInuse)
		}
		before := weigh()
		var topics []*pubsub.Topic
		for _, h := range hosts {
			ps, err := pubsub.New(h, gossips(), pubsub.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer ps.Close()
			topic, err := ps.Join("topic", pubsub.TopicConfig{})
			if err != nil {
				t.Fatal(err)
			}
			topic.Subscribe()
			topics = append(topics, topic)
		}
		for i, topic := range topics {
			n := 1
			if i == 0 {
				n = peers
			}
			if err := topic.Wait(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		kib := (weigh() - before) / (2 * peers) / 1024
		t.Logf("a neighbour in a topic: %.1f KiB of heap and stack, at each end", kib)
		if kib > idlePeer && !raceEnabled {
			t.Errorf("%.1f KiB, want at most %d", kib, idlePeer)
		}
		runtime.KeepAlive(hosts)
	})
}

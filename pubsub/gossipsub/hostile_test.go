package gossipsub

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

// A lab is a router on a core, and peers of every version that say what they like.
type lab struct {
	r     *Router
	c     *pubsub.Core
	a     pubsub.Actions
	now   time.Time
	peers []*pubsub.Peer
}

func newLab(t testing.TB, cfg Config) *lab {
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{r: r, now: time.Unix(1e9, 0)}
	l.c = pubsub.NewCore(l.now, pubsub.CoreConfig{Self: "self", Seed: 1, TopicsPerPeer: 8, SeenEntries: 100, SeenBytes: 1 << 14}, r, &l.a)
	l.c.Join(l.now, pubsub.SubOpts{Topic: "t", RequestsPartial: true}, &l.a)
	for _, p := range r.Protocols() {
		l.add(peer.ID("peer"+p), p)
	}
	l.a.Reset()
	return l
}

func (l *lab) add(id peer.ID, protocol string) *pubsub.Peer {
	p := &pubsub.Peer{ID: id, Protocol: protocol, IP: netip.AddrFrom4([4]byte{10, 0, 0, byte(len(l.peers) / 2)})}
	l.c.AddPeer(l.now, p, &l.a)
	l.peers = append(l.peers, p)
	return p
}

// say lets a peer send an RPC.
func (l *lab) say(p *pubsub.Peer, rpc *pubsub.RPC) {
	if l.c.Open(l.now, p, rpc, &l.a) == pubsub.AdmitNone {
		return
	}
	for _, raw := range rpc.Messages {
		m, err := pubsub.ParseMessage(raw, nil)
		if _, joined := l.c.Joined(topicOf(m)); err != nil || !joined {
			continue
		}
		m.ID = pubsub.DataID(m)
		if l.c.Receive(l.now, p, m, &l.a) && l.c.Verified(l.now, m, &l.a) {
			l.c.Decide(l.now, m, pubsub.Outcome(m.ID[0])%4, &l.a)
		}
	}
	l.c.Close(l.now, p, rpc, &l.a)
}

func topicOf(m *pubsub.Message) string {
	if m == nil {
		return ""
	}
	return m.Topic
}

func (l *lab) pass(d time.Duration) {
	for end := l.now.Add(d); ; l.c.Tick(l.now, &l.a) {
		due := l.c.Due()
		if due.After(end) {
			l.now = end
			return
		}
		l.now = due
	}
}

func full() Config {
	cfg := Default()
	cfg.Params.MaxIDontWantMessages, cfg.Params.EagerThreshold = 20, 10
	s := scoreParams()
	cfg.Score = &s
	cfg.Gater = &GaterParams{}
	cfg.PX = true
	cfg.Direct = []peer.AddrInfo{{ID: "peer/meshsub/1.1.0"}}
	cfg.Partial = &Partial{Incoming: func(peer.ID, *pubsub.Partial) {}, Gossip: func(string, []byte, []peer.ID) {}}
	return cfg
}

// FuzzRouter feeds a router with whatever peers of all versions may say, while time
// passes and peers come and go. It must not panic, and what it remembers is bounded.
func FuzzRouter(f *testing.F) {
	rpc := func(r *pubsub.RPC) []byte { return r.Append(nil) }
	var seed []byte
	for i, r := range []*pubsub.RPC{
		{Subs: []pubsub.SubOpts{{Topic: "t", Subscribe: true, RequestsPartial: true}}, Control: pubsub.Control{Extensions: &pubsub.Extensions{Partial: true}}},
		{Control: pubsub.Control{Graft: []string{"t", "u"}, Prune: []pubsub.Prune{{Topic: "t", Backoff: time.Hour, Peers: []pubsub.PX{{ID: "x"}}}}}},
		{Messages: [][]byte{pubsub.NewMessage("t", []byte("some data that is long enough")).Append(nil)}},
		{Control: pubsub.Control{IHave: []pubsub.IHave{{Topic: "t", IDs: [][]byte{{1}, {2}}}}, IWant: [][]byte{{1}, {2}}, IDontWant: [][]byte{{3}}}},
		{Partial: &pubsub.Partial{Topic: "t", Group: []byte("g"), Metadata: []byte{1}}},
	} {
		b := rpc(r)
		seed = append(append(seed, byte(i), byte(len(b))), b...)
	}
	f.Add(seed)
	f.Add([]byte("\x05\x01\x06\x02\x07\x03\x0d\x10"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := newLab(t, full())
		for steps := 0; len(b) >= 2 && steps < 500; steps++ {
			op, n := b[0], int(b[1])
			b = b[2:]
			p := l.peers[int(op>>3)%len(l.peers)]
			switch op & 7 {
			case 5:
				l.pass(time.Duration(n) * 20 * time.Millisecond)
			case 6:
				l.c.RemovePeer(l.now, p, &l.a)
				for i := range l.peers {
					if l.peers[i] == p {
						l.peers = append(l.peers[:i], l.peers[i+1:]...)
						break
					}
				}
				l.add(p.ID, p.Protocol)
			case 7:
				if _, joined := l.c.Joined("t"); joined {
					l.c.Leave(l.now, "t", &l.a)
				} else {
					l.c.Join(l.now, pubsub.SubOpts{Topic: "t", SupportsPartial: n&1 == 0}, &l.a)
				}
			default:
				n = min(n, len(b))
				var rpc pubsub.RPC
				if rpc.Parse(b[:n]) == nil {
					l.say(p, &rpc)
				}
				b = b[n:]
			}
			l.bounded(t)
			l.a.Reset()
		}
	})
}

// bounded checks that nothing is larger than it may be, and that what belongs together does.
func (l *lab) bounded(t *testing.T) {
	t.Helper()
	r := l.r
	for _, p := range l.c.Peers() {
		n := of(p)
		if most := r.params.MaxIDontWantLength * r.params.MaxIDontWantMessages * (r.params.IDontWantTTL + 1); len(n.unwanted) > most {
			t.Fatalf("%d IDs that %s does not want", len(n.unwanted), p.ID)
		}
		if n.asked > r.params.MaxIHaveLength || n.misses > r.params.MaxIHaveLength {
			t.Fatalf("%d asked of %s, %d missed", n.asked, p.ID, n.misses)
		}
	}
	for _, m := range r.meshes {
		seen := make(map[*neighbour]bool)
		for _, n := range m.peers {
			if seen[n] || l.c.Peer(n.ID) != n.Peer || n.direct {
				t.Fatalf("the mesh of %s has %s twice, or one that is gone or direct", m.topic, n.ID)
			}
			seen[n] = true
		}
	}
	for topic, b := range r.backoffs {
		if len(b) > maxBackoffs {
			t.Fatalf("%d back-offs of %s", len(b), topic)
		}
	}
	if len(r.backoffs) > 3 {
		t.Fatalf("back-offs of %d topics", len(r.backoffs))
	}
	if r.cache.bytes > r.params.HistoryBytes || len(r.staggered) > maxStaggered {
		t.Fatalf("%d bytes are kept, %d messages staggered", r.cache.bytes, len(r.staggered))
	}
	for _, gs := range r.parts.topics {
		if len(gs) > maxPeerGroups+maxOwnGroups {
			t.Fatalf("%d groups", len(gs))
		}
	}
}

func id(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }

// Each bound is reached, and holds.
func TestBounds(t *testing.T) {
	t.Run("back-offs", func(t *testing.T) {
		l := newLab(t, Default())
		for i := range maxBackoffs + 10 {
			l.r.backOff(l.now, "t", peer.ID(id(i)), time.Duration(i+1)*time.Second)
		}
		b := l.r.backoffs["t"]
		if _, first := b[peer.ID(id(9))]; len(b) != maxBackoffs || first {
			t.Errorf("%d back-offs, the earliest among them: %v", len(b), first)
		}
	})
	t.Run("HistoryBytes", func(t *testing.T) {
		cfg := Default()
		cfg.Params.HistoryBytes = 10_000
		l := newLab(t, cfg)
		for i := range 30 {
			m := pubsub.NewMessage("t", make([]byte, 980))
			m.ID = pubsub.MessageID(id(i))
			l.r.cache.put(m)
		}
		if n := len(l.r.cache.by); n != 10 || l.r.cache.by[pubsub.MessageID(id(29))] == nil || l.r.cache.bytes > 10_000 {
			t.Errorf("%d messages of %d bytes", n, l.r.cache.bytes)
		}
	})
	t.Run("messages that are scored", func(t *testing.T) {
		l := newLab(t, full())
		for i := range maxRecords + 10 {
			l.r.score.record(l.now, pubsub.MessageID(id(i)), "t")
		}
		if n := len(l.r.score.records); n != maxRecords {
			t.Errorf("%d", n)
		}
		rec := l.r.score.record(l.now, pubsub.MessageID(id(maxRecords)), "t")
		for i := range maxRecordPeers + 10 {
			l.r.score.duplicate(l.now, peer.ID(id(i)), rec.id)
		}
		if n := len(rec.peers); n != maxRecordPeers {
			t.Errorf("%d peers delivered one", n)
		}
	})
	t.Run("peers that left", func(t *testing.T) {
		l := newLab(t, full())
		s := l.r.score
		for i := range maxRetained + 10 {
			p := &pubsub.Peer{ID: peer.ID(id(i))}
			s.add(p)
			s.punish(p.ID, 10)
			s.remove(l.now, p.ID)
		}
		if n := len(s.peers); n > maxRetained+1 {
			t.Errorf("%d are remembered", n)
		}
		for i := range maxSources + 10 {
			p := &pubsub.Peer{ID: "x", IP: netip.AddrFrom4([4]byte(id(i + 1<<24)))}
			l.r.gater.add(p)
			l.r.gater.remove(l.now, p)
		}
		if n := len(l.r.gater.by); n > maxSources+1 {
			t.Errorf("%d addresses are remembered", n)
		}
	})
	t.Run("staggered", func(t *testing.T) {
		cfg := Default()
		cfg.Params.EagerThreshold = 1
		l := newLab(t, cfg)
		for i := range 4 {
			l.say(l.add(peer.ID(fmt.Sprint("m", i)), "/meshsub/1.2.0"), &pubsub.RPC{Control: pubsub.Control{Graft: []string{"t"}}})
		}
		for i := range maxStaggered + 10 {
			l.a.Reset()
			m := pubsub.NewMessage("t", id(i))
			m.ID = pubsub.MessageID(id(i))
			l.c.Receive(l.now, l.peers[0], m, &l.a)
			l.c.Verified(l.now, m, &l.a)
			l.c.Decide(l.now, m, pubsub.Accepted, &l.a)
			want := 2
			if i >= maxStaggered {
				want = 4
			}
			if len(l.a.Sends) != want || len(l.r.staggered) > maxStaggered {
				t.Fatalf("message %d goes to %d at once, and %d are staggered", i, len(l.a.Sends), len(l.r.staggered))
			}
		}
	})
	t.Run("IDONTWANT", func(t *testing.T) {
		l := newLab(t, full())
		p := l.c.Peer("peer/meshsub/1.2.0")
		for range 5 {
			l.pass(time.Second)
			for i := range 100 {
				var ids [][]byte
				for j := range 50 {
					ids = append(ids, id(l.r.ticks<<16+i*50+j))
				}
				l.say(p, &pubsub.RPC{Control: pubsub.Control{IDontWant: ids}})
			}
			l.bounded(t)
		}
		if n := len(of(p).unwanted); n != 10*20*3 {
			t.Errorf("%d IDs are remembered", n)
		}
	})
	t.Run("missed", func(t *testing.T) {
		cfg := Default()
		cfg.Params.MaxIHaveLength = 50
		l := newLab(t, cfg)
		p := l.c.Peer("peer/meshsub/1.1.0")
		for i := range 80 {
			m := pubsub.NewMessage("t", nil)
			m.ID = pubsub.MessageID(id(i))
			l.r.Missed(l.now, p, m)
		}
		if n := of(p); n.misses != 50 || len(n.missed["t"]) != 50 {
			t.Errorf("%d", n.misses)
		}
	})
	t.Run("groups", func(t *testing.T) {
		l := newLab(t, full())
		p := l.c.Peer("peer/meshsub/1.3.0")
		l.say(p, &pubsub.RPC{Control: pubsub.Control{Extensions: &pubsub.Extensions{Partial: true}}})
		for i := range maxGroupsEach + 5 {
			l.say(p, &pubsub.RPC{Partial: &pubsub.Partial{Topic: "t", Group: id(i)}})
		}
		if n := len(l.r.parts.topics["t"]); n != maxGroupsEach {
			t.Errorf("%d of one peer", n)
		}
		for i := range maxPeerGroups {
			l.r.parts.group("t", string(id(1000+i)), peer.ID(id(i)))
		}
		if n := len(l.r.parts.topics["t"]); n != maxPeerGroups {
			t.Errorf("%d of all", n)
		}
		for i := range maxOwnGroups + 5 {
			l.r.parts.group("t", string(id(10000+i)), "")
		}
		if n := len(l.r.parts.topics["t"]); n != maxPeerGroups+maxOwnGroups {
			t.Errorf("%d with one's own", n)
		}
		g := l.r.parts.group("t", string(id(10000)), "")
		for i := range maxGroupPeers + 5 {
			g.knows(peer.ID(id(i)))
		}
		if len(g.peers) != maxGroupPeers {
			t.Errorf("%d peers of a group", len(g.peers))
		}
		before := len(l.r.parts.topics["t"])
		l.say(p, &pubsub.RPC{Partial: &pubsub.Partial{Topic: "t", Group: make([]byte, maxGroupID+1)}})
		if len(l.r.parts.topics["t"]) != before {
			t.Error("a group with a long ID")
		}
	})
	t.Run("records of a PRUNE", func(t *testing.T) {
		cfg := Default()
		cfg.PX = true
		l := newLab(t, cfg)
		l.c = pubsub.NewCore(l.now, pubsub.CoreConfig{Self: "self", Record: func(peer.ID) []byte { return make([]byte, 3000) }}, l.r, &l.a)
		for i := range 20 {
			l.say(l.add(peer.ID(id(i)), "/meshsub/1.1.0"), &pubsub.RPC{Subs: []pubsub.SubOpts{{Topic: "t", Subscribe: true}}})
		}
		p := l.r.prune(of(l.peers[len(l.peers)-1]), "t", true, time.Minute)
		size := 0
		for _, x := range p.Peers {
			size += len(x.Record)
		}
		if len(p.Peers) != 16 || size != 9000 {
			t.Errorf("%d peers, %d bytes of records", len(p.Peers), size)
		}
	})
	t.Run("PX", func(t *testing.T) {
		l := newLab(t, Default())
		var px []pubsub.PX
		for i := range 64 {
			b := make([]byte, 34)
			b[0], b[1], b[2] = 0x12, 0x20, byte(i)
			px = append(px, pubsub.PX{ID: peer.ID(b)})
		}
		l.a.Reset()
		l.say(l.c.Peer("peer/meshsub/1.1.0"), &pubsub.RPC{Control: pubsub.Control{Prune: []pubsub.Prune{{Topic: "t", Peers: px}}}})
		if len(l.a.Connects) != 16 {
			t.Errorf("%d connections", len(l.a.Connects))
		}
	})
}

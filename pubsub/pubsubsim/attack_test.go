package pubsubsim_test

import (
	"encoding/binary"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/pubsub/pubsubsim"
)

// nodes is how many there are in a simulation: 60, or what PLEXUS_SIM says.
func nodes(t testing.TB) int {
	v := os.Getenv("PLEXUS_SIM")
	if v == "" {
		return 60
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 60 {
		t.Fatalf("PLEXUS_SIM=%s: want a number of nodes, at least 60", v)
	}
	return n
}

const topic = "topic"

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // time is scarcer than memory
	os.Exit(m.Run())
}

// judge is how the honest judge their peers: what each is expected to deliver fits
// the rate at which messages are published.
func judge() *gossipsub.ScoreParams {
	return &gossipsub.ScoreParams{
		Thresholds:            gossipsub.Thresholds{Gossip: -10, Publish: -50, Graylist: -100, AcceptPX: 100, OpportunisticGraft: 1},
		IPColocationWeight:    -10,
		IPColocationThreshold: 4,
		BehaviourWeight:       -10,
		BehaviourThreshold:    1,
		BehaviourDecay:        gossipsub.Decay(time.Minute, time.Second),
		RetainScore:           10 * time.Minute,
		Topics: map[string]*gossipsub.TopicScoreParams{topic: {
			TopicWeight:      1,
			TimeInMeshWeight: 0.01, TimeInMeshQuantum: time.Second, TimeInMeshCap: 10,
			FirstDeliveriesWeight: 1, FirstDeliveriesDecay: gossipsub.Decay(time.Minute, time.Second), FirstDeliveriesCap: 50,
			MeshDeliveriesWeight: -10, MeshDeliveriesDecay: gossipsub.Decay(time.Minute, time.Second),
			MeshDeliveriesThreshold: 1, MeshDeliveriesCap: 50, MeshDeliveriesActivation: 15 * time.Second, MeshDeliveriesWindow: 50 * time.Millisecond,
			MeshFailureWeight: -10, MeshFailureDecay: gossipsub.Decay(5*time.Minute, time.Second),
			InvalidWeight: -20, InvalidDecay: gossipsub.Decay(10*time.Minute, time.Second),
		}},
	}
}

// A network is honest nodes and others.
type network struct {
	t           *testing.T
	s           *pubsubsim.Sim
	world       *pubsubsim.World
	honest, bad []*pubsubsim.Node
	published   int
	quiet       bool // nobody publishes any more
}

func newNetwork(t *testing.T) *network {
	w := pubsubsim.NewWorld(7)
	return &network{t: t, world: w, s: pubsubsim.New(pubsubsim.Config{Seed: 7, Latency: w.Latency})}
}

// invalid is what the data of messages that validators reject begins with.
const invalid = 1 << 63

// addHonest adds honest nodes that are in the topic.
func (n *network) addHonest(count int, change func(*gossipsub.Config)) []*pubsubsim.Node {
	for range count {
		cfg := gossipsub.Default()
		cfg.Params.OpportunisticGraftTicks = 10
		cfg.Score = judge()
		if change != nil {
			change(&cfg)
		}
		bits := n.world.Place()
		x := n.s.Add(pubsubsim.NodeConfig{
			Router: gossipsub.Must(cfg), Up: bits, Down: bits,
			Check: func(m *pubsub.Message) (pubsub.Outcome, time.Duration) {
				if binary.BigEndian.Uint64(m.Data)&invalid != 0 {
					return pubsub.Rejected, time.Millisecond
				}
				return pubsub.Accepted, time.Millisecond
			},
		})
		x.Join(topic)
		n.honest = append(n.honest, x)
	}
	return n.honest[len(n.honest)-count:]
}

// A sybil is a router that grafts all whom it can, and swallows messages.
type sybil struct {
	*gossipsub.Router
	swallow func(m *pubsub.Message) bool
}

// Decided passes on what is not swallowed; what is, gossip does not speak of either.
func (s *sybil) Decided(now time.Time, m *pubsub.Message, o pubsub.Outcome, a *pubsub.Actions) {
	if s.swallow == nil || !s.swallow(m) {
		s.Router.Decided(now, m, o, a)
	}
}

// Received says nothing to its mesh.
func (s *sybil) Received(now time.Time, m *pubsub.Message, a *pubsub.Actions) {
	if s.swallow == nil || !s.swallow(m) {
		s.Router.Received(now, m, a)
	}
}

// addSybils adds nodes that are in the topic, and in as many meshes as let them.
func (n *network) addSybils(count int, ip netip.Addr, swallow func(m *pubsub.Message) bool) {
	for range count {
		cfg := gossipsub.Default()
		cfg.Params.D, cfg.Params.Dlo, cfg.Params.Dhi, cfg.Params.Dout = 1000, 1000, 1000, 0
		n.world.Place()
		x := n.s.Add(pubsubsim.NodeConfig{Router: &sybil{gossipsub.Must(cfg), swallow}, IP: ip})
		x.Join(topic)
		n.bad = append(n.bad, x)
	}
}

// attack connects each sybil to so many of the targets.
func (n *network) attack(targets []*pubsubsim.Node, degree int) {
	for _, x := range n.bad {
		for _, i := range n.s.Rand.Perm(len(targets))[:min(degree, len(targets))] {
			n.s.Connect(x, targets[i])
		}
	}
}

// publish lets random honest nodes publish, every so often.
func (n *network) publish(every time.Duration) {
	n.s.Every(every, func() bool {
		if !n.quiet {
			n.send(n.honest[n.s.Rand.IntN(len(n.honest))])
		}
		return !n.quiet
	})
}

func (n *network) send(x *pubsubsim.Node) {
	data := make([]byte, 512)
	n.published++
	binary.BigEndian.PutUint64(data, uint64(n.published))
	x.Publish(topic, data)
}

// settle ends the publishing, and waits until nothing is under way.
func (n *network) settle() {
	n.quiet = true
	n.s.Run(6 * time.Second)
}

// meshes returns what share of some nodes' meshes is not honest: of all peers in them,
// and of those that have been there for longer than it takes to find out.
func (n *network) meshes(of []*pubsubsim.Node) (share, lasting float64) {
	bad := make(map[peer.ID]bool)
	for _, x := range n.bad {
		bad[x.ID] = true
	}
	all, some, old := 0, 0, 0
	for _, x := range of {
		r := x.Core.Router()
		since := make(map[peer.ID]time.Duration)
		for _, s := range r.Scores(time.Time{}) {
			for _, t := range s.Topics {
				since[s.Peer] = t.InMesh
			}
		}
		for _, p := range r.Mesh(topic) {
			all++
			if bad[p.ID] {
				some++
				if since[p.ID] > 20*time.Second {
					old++
				}
			}
		}
	}
	return float64(some) / float64(max(all, 1)), float64(old) / float64(max(all, 1))
}

// want checks what must hold after an attack: of what the honest published, 99.9 % was
// delivered to each of them; of their meshes no more than the given share are attackers
// that have been there for a while; and nothing grew without bound.
func (n *network) want(share float64) {
	n.t.Helper()
	delivered, refused, peak := 0, 0, 0
	for _, x := range n.honest {
		delivered += x.Stats.Delivered
		refused += x.Stats.Refused
		peak = max(peak, x.Stats.PeakQueue)
	}
	got := float64(delivered) / float64(n.published*len(n.honest))
	in, lasting := n.meshes(n.honest)
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	links := 0
	for _, x := range n.s.Nodes {
		links += x.Neighbours()
	}
	each := float64(mem.HeapAlloc) / float64(links) / 1024
	n.t.Logf("%d honest and %d others: %d messages, %.4f %% delivered; %.1f %% of meshes are others', %.1f %% for long; %d RPCs refused; at most %d KiB waited for a peer; %.1f KiB of heap a link",
		len(n.honest), len(n.bad), n.published, 100*got, 100*in, 100*lasting, refused, peak>>10, each)
	if got < 0.999 {
		n.t.Errorf("%.4f %% were delivered, want 99.9 %%", 100*got)
	}
	if lasting > share {
		n.t.Errorf("%.1f %% of the meshes are the attackers' for long, want at most %.1f %%", 100*lasting, 100*share)
	}
	if bound := pubsub.DefaultForwardQueue; peak > bound {
		n.t.Errorf("%d bytes waited for one peer", peak)
	}
	if each > 64 {
		n.t.Errorf("%.1f KiB of heap for each link", each)
	}
}

const rate = 500 * time.Millisecond // between messages

// TestBaseline: without attackers everything arrives, and the honest think well of each other.
func TestBaseline(t *testing.T) {
	n := newNetwork(t)
	n.addHonest(nodes(t), nil)
	n.s.Mix(n.honest, 12)
	n.s.Run(5 * time.Second)
	n.publish(rate / 2)
	n.s.Run(40 * time.Second)
	n.settle()
	n.want(0)
	low, all := 0, 0
	for _, x := range n.honest {
		for _, s := range x.Core.Router().Scores(time.Time{}) {
			if all++; s.Total < 0 {
				low++
			}
		}
	}
	t.Logf("%d of %d scores are negative", low, all)
	if low > all/4 { // those that are never the first to deliver
		t.Errorf("%d of %d scores are negative", low, all)
	}
}

// TestEclipse: sybils, all of which connect to one node, swallow everything. It is heard
// and hears all the same.
func TestEclipse(t *testing.T) {
	n := newNetwork(t)
	n.addHonest(nodes(t)*4/5, nil)
	n.s.Mix(n.honest, 12)
	n.s.Run(5 * time.Second)
	n.publish(rate)
	n.s.Run(15 * time.Second)
	n.addSybils(nodes(t)/5, netip.Addr{}, func(*pubsub.Message) bool { return true })
	target := n.honest[:1]
	n.attack(target, 1)
	n.s.Every(time.Second, func() bool { n.send(target[0]); return !n.quiet })
	n.s.Run(40 * time.Second)
	n.settle()
	n.want(0.05)
	if got := target[0].Stats.Delivered; got < n.published*999/1000 {
		t.Errorf("the target got %d of %d messages", got, n.published)
	}
	if in, _ := n.meshes(target); in > 0.5 {
		t.Errorf("%.0f %% of the target's mesh are sybils", 100*in)
	}
}

// TestDegradation: "Eclipse Attack Against the Entire Network": more sybils than honest
// nodes, each connected to many, swallow everything.
func TestDegradation(t *testing.T) {
	n := newNetwork(t)
	n.addHonest(nodes(t)*2/5, nil)
	n.s.Mix(n.honest, 12)
	n.s.Run(5 * time.Second)
	n.publish(rate)
	n.s.Run(15 * time.Second)
	n.addSybils(nodes(t)*3/5, netip.Addr{}, func(*pubsub.Message) bool { return true })
	n.attack(n.honest, 24)
	n.s.Run(30 * time.Second)
	n.settle()
	n.want(0.05)
}

// TestCensor: sybils pass on everything but what one node publishes.
func TestCensor(t *testing.T) {
	n := newNetwork(t)
	n.addHonest(nodes(t)/2, nil)
	victim := n.honest[0]
	censored := make(map[uint64]bool)
	n.s.Mix(n.honest, 12)
	n.s.Run(5 * time.Second)
	n.publish(rate)
	n.addSybils(nodes(t)/2, netip.Addr{}, func(m *pubsub.Message) bool { return censored[binary.BigEndian.Uint64(m.Data)] })
	n.attack(n.honest, 24)
	n.s.Run(10 * time.Second)
	n.s.Every(time.Second, func() bool {
		if !n.quiet {
			censored[uint64(n.published+1)] = true
			n.send(victim)
		}
		return !n.quiet
	})
	n.s.Run(25 * time.Second)
	n.settle()
	n.want(1) // who passes on most messages is no bad peer
}

// TestColdBoot: the honest and the sybils, who swallow everything, come up together: there
// is no mesh yet, and nobody is known.
func TestColdBoot(t *testing.T) {
	n := newNetwork(t)
	n.addHonest(nodes(t)*2/5, nil)
	n.addSybils(nodes(t)*3/5, netip.Addr{}, func(*pubsub.Message) bool { return true })
	n.attack(n.honest, 24)
	n.s.Mix(n.honest, 12)
	n.publish(rate)
	n.s.Run(40 * time.Second)
	n.settle()
	n.want(0.05)
}

// TestCovertFlash: sybils behave, until they all stop passing on anything.
func TestCovertFlash(t *testing.T) {
	n := newNetwork(t)
	n.addHonest(nodes(t)*2/5, nil)
	flash := false
	n.addSybils(nodes(t)*3/5, netip.Addr{}, func(*pubsub.Message) bool { return flash })
	n.s.Mix(n.honest, 12)
	n.attack(n.honest, 24)
	n.publish(rate)
	n.s.Run(25 * time.Second)
	before, _ := n.meshes(n.honest)
	flash = true
	n.s.Run(50 * time.Second)
	n.settle()
	t.Logf("before the flash %.1f %% of the meshes were sybils", 100*before)
	n.want(0.05)
}

// TestAttackAtDawn: the sybils are there first, and swallow what is published from the
// first message on; each honest node that comes finds them before it finds others.
func TestAttackAtDawn(t *testing.T) {
	n := newNetwork(t)
	n.addSybils(nodes(t)*3/5, netip.Addr{}, func(*pubsub.Message) bool { return true })
	for range nodes(t) * 2 / 5 {
		x := n.addHonest(1, nil)[0]
		for _, i := range n.s.Rand.Perm(len(n.bad))[:min(36, len(n.bad))] {
			n.s.Connect(n.bad[i], x)
		}
	}
	n.s.Run(5 * time.Second)
	n.s.Mix(n.honest, 12)
	n.s.Run(5 * time.Second)
	n.publish(rate)
	n.s.Run(40 * time.Second)
	n.settle()
	n.want(0.05)
}

// TestColocation: sybils that share few addresses are nobody's mesh from the start.
func TestColocation(t *testing.T) {
	n := newNetwork(t)
	n.addHonest(nodes(t)/2, nil)
	n.s.Mix(n.honest, 12)
	n.s.Run(5 * time.Second)
	n.publish(rate)
	for i := range 4 {
		n.addSybils(nodes(t)/8, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), func(*pubsub.Message) bool { return true })
	}
	n.attack(n.honest, 24)
	n.s.Run(15 * time.Second)
	n.settle()
	n.want(0.05)
}

// spam runs an attack of nodes, one in ten, that tell each of their 20 neighbours
// something every 100 ms.
func spam(t *testing.T, rpc func(n *network, to *pubsubsim.Node) *pubsub.RPC) *network {
	n := newNetwork(t)
	n.addHonest(nodes(t)*9/10, nil)
	n.s.Mix(n.honest, 12)
	n.s.Run(5 * time.Second)
	n.publish(rate)
	n.addSybils(nodes(t)/10, netip.Addr{}, nil)
	n.attack(n.honest, 20)
	n.s.Run(5 * time.Second)
	for _, x := range n.bad {
		var targets []*pubsubsim.Node
		for _, h := range n.honest {
			if x.Connected(h) {
				targets = append(targets, h)
			}
		}
		n.s.Every(100*time.Millisecond, func() bool {
			for _, to := range targets {
				if r := rpc(n, to); r != nil {
					x.Say(to, r)
				}
			}
			return !n.quiet
		})
	}
	n.s.Run(15 * time.Second)
	n.settle()
	return n
}

func bogus(n *network, count int) [][]byte {
	ids := make([][]byte, count)
	for i := range ids {
		ids[i] = binary.BigEndian.AppendUint64(nil, n.s.Rand.Uint64()|invalid)
	}
	return ids
}

// TestIHaveSpam: whoever offers what is not there is asked for little of it, and thrown out.
func TestIHaveSpam(t *testing.T) {
	spam(t, func(n *network, _ *pubsubsim.Node) *pubsub.RPC {
		return &pubsub.RPC{Control: pubsub.Control{IHave: []pubsub.IHave{{Topic: topic, IDs: bogus(n, 50)}}}}
	}).want(0)
}

// TestIWantSpam: whoever asks for all messages again and again gets each three times.
func TestIWantSpam(t *testing.T) {
	n := spam(t, func(n *network, _ *pubsubsim.Node) *pubsub.RPC {
		var ids [][]byte
		for i := max(1, n.published-20); i <= n.published; i++ {
			ids = append(ids, binary.BigEndian.AppendUint64(nil, uint64(i)))
		}
		return &pubsub.RPC{Control: pubsub.Control{IWant: ids}}
	})
	n.want(1) // it is no reason to throw anybody out
	for _, x := range n.bad {
		// From each of 20 neighbours one copy by the mesh, or its own publishing, and three by IWANT.
		if most := n.published * 20 * (2 + 3); x.Stats.Copies > most {
			t.Errorf("%d copies of %d messages, want at most %d", x.Stats.Copies, n.published, most)
		}
	}
}

// TestGraftSpam: whoever insists on a mesh is thrown out.
func TestGraftSpam(t *testing.T) {
	spam(t, func(*network, *pubsubsim.Node) *pubsub.RPC {
		return &pubsub.RPC{Control: pubsub.Control{Prune: []pubsub.Prune{{Topic: topic}}, Graft: []string{topic, "other"}}}
	}).want(0)
}

// TestIDontWantSpam: what somebody does not want costs little memory.
func TestIDontWantSpam(t *testing.T) {
	spam(t, func(n *network, _ *pubsubsim.Node) *pubsub.RPC {
		return &pubsub.RPC{Control: pubsub.Control{IDontWant: bogus(n, 100)}}
	}).want(1)
}

// TestInvalidSpam: whoever sends what is invalid is thrown out, and no longer listened to.
func TestInvalidSpam(t *testing.T) {
	n := spam(t, func(n *network, _ *pubsubsim.Node) *pubsub.RPC {
		m := pubsub.NewMessage(topic, bogus(n, 1)[0])
		return &pubsub.RPC{Messages: [][]byte{m.Append(nil)}}
	})
	n.want(0)
	refused := 0
	for _, x := range n.honest {
		refused += x.Stats.Refused
	}
	if refused == 0 {
		t.Error("nobody was refused")
	}
}

// TestPoisonedPX: peers that name each other to whom they prune get no connections by it.
func TestPoisonedPX(t *testing.T) {
	before := 0
	n := spam(t, func(n *network, _ *pubsubsim.Node) *pubsub.RPC {
		if before == 0 {
			for _, h := range n.honest {
				before += h.Neighbours()
			}
		}
		p := pubsub.Prune{Topic: topic, Backoff: time.Second}
		for range 16 {
			p.Peers = append(p.Peers, pubsub.PX{ID: n.bad[n.s.Rand.IntN(len(n.bad))].ID})
		}
		return &pubsub.RPC{Control: pubsub.Control{Prune: []pubsub.Prune{p}}}
	})
	n.want(0.05)
	after := 0
	for _, h := range n.honest {
		after += h.Neighbours()
	}
	if after != before {
		t.Errorf("the honest had %d connections, and have %d", before, after)
	}
}

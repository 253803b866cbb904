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

const rate = 500 * time.Millisecond // between messages

// judge is how the honest judge their peers, where a message is published each rate.
//
// What a member of a mesh is to deliver follows from that, as in Lighthouse: its counter
// would come to expected if it brought all messages within two seconds of the first copy.
// It brings fewer, since it does not send back what we sent it. An eighth is asked for;
// Lighthouse asks for a fiftieth, Prysm for a tenth of the blocks, or for none. Who brings
// nothing loses what the best peer has, and for an hour.
//
// https://github.com/sigp/lighthouse/blob/stable/beacon_node/lighthouse_network/src/service/gossipsub_scoring_parameters.rs
func judge() *gossipsub.ScoreParams {
	decay := gossipsub.Decay(time.Minute, time.Second)
	expected := float64(time.Second/rate) / (1 - decay)
	threshold := expected / 8
	first := 2 * expected / float64(gossipsub.DefaultParams().D)
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
			FirstDeliveriesWeight: 1, FirstDeliveriesDecay: decay, FirstDeliveriesCap: first,
			MeshDeliveriesWeight: -first / (threshold * threshold), MeshDeliveriesDecay: decay,
			MeshDeliveriesThreshold: threshold, MeshDeliveriesCap: 4 * threshold, MeshDeliveriesActivation: 15 * time.Second, MeshDeliveriesWindow: 2 * time.Second,
			MeshFailureWeight: -first / (threshold * threshold), MeshFailureDecay: gossipsub.Decay(time.Hour, time.Second),
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
	attacker    map[peer.ID]bool
	published   int
	size        int     // of messages
	share       float64 // of the meshes of the honest, that the others had when the attack ended
	quiet       bool    // nobody publishes any more, or attacks
}

func newNetwork(t *testing.T, loss float64) *network {
	w := pubsubsim.NewWorld(7)
	return &network{t: t, world: w, attacker: make(map[peer.ID]bool), size: 512, s: pubsubsim.New(pubsubsim.Config{Seed: 7, Latency: w.Latency, Loss: loss})}
}

// established is a network whose honest nodes have found each other, and publish.
func established(t *testing.T, honest int) *network {
	n := newNetwork(t, 0)
	n.addHonest(honest, nil)
	n.s.Mix(n.honest, 12)
	n.s.Run(5 * time.Second)
	n.publish(rate)
	return n
}

// everything is what most sybils swallow.
func everything(*pubsub.Message) bool { return true }

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
		n.attacker[x.ID] = true
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
	data := make([]byte, n.size)
	n.published++
	binary.BigEndian.PutUint64(data, uint64(n.published))
	x.Publish(topic, data)
}

// settle ends the publishing and the attack, and waits until nothing is under way.
func (n *network) settle() {
	n.share = n.meshes(n.honest)
	n.quiet = true
	n.s.Run(6 * time.Second)
}

// meshes returns what share of the peers in some nodes' meshes is not honest.
func (n *network) meshes(of []*pubsubsim.Node) float64 {
	all, some := 0, 0
	for _, x := range of {
		for _, p := range x.Core.Router().Mesh(topic) {
			all++
			if n.attacker[p.ID] {
				some++
			}
		}
	}
	return float64(some) / float64(max(all, 1))
}

// punished returns how many scores of honest peers with the honest are negative, and for
// how they behave.
func (n *network) punished() (all, negative, behaviour int) {
	for _, x := range n.honest {
		for _, s := range x.Core.Router().Scores(time.Time{}) {
			if n.attacker[s.Peer] {
				continue
			}
			all++
			if s.Total < 0 {
				negative++
			}
			if s.Behaviour < 0 {
				behaviour++
			}
		}
	}
	return all, negative, behaviour
}

// want checks what must hold after an attack: of what the honest published, 99.9 % was
// delivered to each of them; of their meshes no more than the given share were attackers;
// no honest peer is punished for its behaviour; and nothing grew without bound.
func (n *network) want(share float64) {
	n.t.Helper()
	delivered, refused, peak := 0, 0, 0
	for _, x := range n.honest {
		delivered += x.Stats.Delivered
		refused += x.Stats.Refused
		peak = max(peak, x.Stats.PeakQueue)
	}
	got := float64(delivered) / float64(n.published*len(n.honest))
	scores, negative, behaviour := n.punished()
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	links := 0
	for _, x := range n.s.Nodes {
		links += x.Neighbours()
	}
	each := float64(mem.HeapAlloc) / float64(links) / 1024
	n.t.Logf("%d honest and %d others: %d messages, %.4f %% delivered; %.1f %% of meshes were others'; %d of %d scores of the honest are negative; %d RPCs refused; at most %d KiB waited for a peer; %.1f KiB of heap a link",
		len(n.honest), len(n.bad), n.published, 100*got, 100*n.share, negative, scores, refused, peak>>10, each)
	if got < 0.999 {
		n.t.Errorf("%.4f %% were delivered, want 99.9 %%", 100*got)
	}
	if n.share > share {
		n.t.Errorf("%.1f %% of the meshes were the attackers', want at most %.1f %%", 100*n.share, 100*share)
	}
	if behaviour > 0 {
		n.t.Errorf("%d of %d honest peers are punished for their behaviour", behaviour, scores)
	}
	if bound := pubsub.DefaultForwardQueue; peak > bound {
		n.t.Errorf("%d bytes waited for one peer", peak)
	}
	if each > 64 {
		n.t.Errorf("%.1f KiB of heap for each link", each)
	}
}

// fair lets honest nodes publish so many messages of 2 KiB, which IDONTWANT is sent for. They
// must think well of each other: no penalty is forgiven, and each is remembered.
func fair(t *testing.T, n *network, every time.Duration, count int) {
	n.size = 2 << 10
	n.s.Mix(n.honest, 12)
	n.s.Run(5 * time.Second)
	n.publish(every)
	n.s.Run(time.Duration(count) * every)
	n.settle()
	n.want(0)
	if all, negative, _ := n.punished(); negative > all/100 { // those that are hardly ever quick enough
		t.Errorf("%d of %d scores are negative", negative, all)
	}
}

func unforgiving(c *gossipsub.Config) {
	c.Score.BehaviourThreshold = 0
	c.Score.BehaviourDecay = gossipsub.Decay(24*time.Hour, time.Second)
}

// TestBaseline: without attackers everything arrives, and the honest think well of each other.
func TestBaseline(t *testing.T) {
	n := newNetwork(t, 0)
	n.addHonest(nodes(t), unforgiving)
	fair(t, n, rate/2, 160)
}

// TestLoss: so they do where one packet of a hundred is lost.
func TestLoss(t *testing.T) {
	n := newNetwork(t, 0.01)
	n.addHonest(nodes(t), unforgiving)
	fair(t, n, rate/2, 160)
}

// TestOverload: where more is published than the links can carry, and a message in ten is late,
// peers do not keep what they promise by IHAVE. That is all that the honest are punished for:
// without a bound on what they may say by IWANT and IDONTWANT, it is the same.
func TestOverload(t *testing.T) {
	run := func(bound int) (penalties float64) {
		n := newNetwork(t, 0.01)
		n.size = 2 << 10
		for range 20 {
			cfg := gossipsub.Default()
			cfg.Score = judge()
			unforgiving(&cfg)
			if bound > 0 {
				cfg.Params.MaxIWantUnoffered, cfg.Params.MaxIDontWantMessages = bound, bound
			}
			n.world.Place()
			x := n.s.Add(pubsubsim.NodeConfig{Router: gossipsub.Must(cfg), Up: 2e6, Down: 2e6, Fwd: 256 << 10})
			x.Join(topic)
			n.honest = append(n.honest, x)
		}
		n.s.Mix(n.honest, 12)
		n.s.Run(5 * time.Second)
		n.publish(5 * time.Millisecond)
		n.s.Run(4 * time.Second)
		n.settle()
		for _, x := range n.honest {
			for _, s := range x.Core.Router().Scores(time.Time{}) {
				penalties += s.Behaviour
			}
		}
		return penalties
	}
	bounded, free := run(0), run(1<<40)
	t.Logf("P7 of all honest peers: %.0f, and %.0f without bounds", bounded, free)
	if bounded != free {
		t.Error("what IWANT and IDONTWANT may say hits the honest")
	}
	if free == 0 {
		t.Error("nothing was late: the links carry it all")
	}
}

// TestEclipse: sybils, all of which connect to one node, swallow everything. It is heard
// and hears all the same.
func TestEclipse(t *testing.T) {
	n := established(t, nodes(t)*4/5)
	n.s.Run(15 * time.Second)
	n.addSybils(nodes(t)/5, netip.Addr{}, everything)
	target := n.honest[:1]
	n.attack(target, 1)
	n.s.Every(time.Second, func() bool { n.send(target[0]); return !n.quiet })
	n.s.Run(40 * time.Second)
	n.settle()
	n.want(0.05)
	if got := target[0].Stats.Delivered; got < n.published*999/1000 {
		t.Errorf("the target got %d of %d messages", got, n.published)
	}
	if in := n.meshes(target); in > 0.05 {
		t.Errorf("%.0f %% of the target's mesh are sybils", 100*in)
	}
}

// TestDegradation: "Eclipse Attack Against the Entire Network": more sybils than honest
// nodes, each connected to many, swallow everything.
func TestDegradation(t *testing.T) {
	n := established(t, nodes(t)*2/5)
	n.s.Run(15 * time.Second)
	n.addSybils(nodes(t)*3/5, netip.Addr{}, everything)
	n.attack(n.honest, 24)
	n.s.Run(30 * time.Second)
	n.settle()
	n.want(0.05)
}

// TestCensor: sybils pass on everything but what one node publishes. No score tells: they
// are good peers but for that. Its messages arrive all the same.
func TestCensor(t *testing.T) {
	n := established(t, nodes(t)/2)
	victim := n.honest[0]
	censored := make(map[uint64]bool)
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
	n.want(1)
	missing := n.published * len(n.honest)
	for _, x := range n.honest {
		missing -= x.Stats.Delivered
	}
	if all := len(censored) * len(n.honest); missing*1000 > all {
		t.Errorf("%d of %d deliveries of the victim's messages are missing", missing, all)
	}
}

// TestCensorMost: sybils pass on one message of ten, of whomever: that is told.
func TestCensorMost(t *testing.T) {
	n := established(t, nodes(t)/2)
	n.addSybils(nodes(t)/2, netip.Addr{}, func(m *pubsub.Message) bool { return binary.BigEndian.Uint64(m.Data)%10 != 0 })
	n.attack(n.honest, 24)
	n.s.Run(40 * time.Second)
	n.settle()
	n.want(0.05)
}

// TestReturn: what a mesh has no room for comes back when its back-off ends, and takes up to
// 20 s to be found out, each time others; but nobody comes back after that. It takes no
// large network, but minutes.
func TestReturn(t *testing.T) {
	n := newNetwork(t, 0)
	n.addHonest(15, nil)
	n.addSybils(15, netip.Addr{}, everything)
	n.s.Mix(n.honest, 12)
	n.attack(n.honest, 15)
	n.publish(rate)
	n.s.Run(6 * time.Minute)
	n.settle()
	n.want(0.05)
}

// TestColdBoot: the honest and the sybils, who swallow everything, come up together: there
// is no mesh yet, and nobody is known.
func TestColdBoot(t *testing.T) {
	n := newNetwork(t, 0)
	n.addHonest(nodes(t)*2/5, nil)
	n.addSybils(nodes(t)*3/5, netip.Addr{}, everything)
	n.attack(n.honest, 24)
	n.s.Mix(n.honest, 12)
	n.publish(rate)
	n.s.Run(40 * time.Second)
	n.settle()
	n.want(0.05)
}

// TestCovertFlash: sybils behave, until they all stop passing on anything. What they brought
// before is forgotten in half a minute, and they leave the meshes.
func TestCovertFlash(t *testing.T) {
	n := newNetwork(t, 0)
	n.addHonest(nodes(t)*2/5, nil)
	flash := false
	n.addSybils(nodes(t)*3/5, netip.Addr{}, func(*pubsub.Message) bool { return flash })
	n.s.Mix(n.honest, 12)
	n.attack(n.honest, 24)
	n.publish(rate)
	n.s.Run(25 * time.Second)
	before := n.meshes(n.honest)
	flash = true
	n.s.Run(35 * time.Second)
	n.settle()
	t.Logf("before the flash %.1f %% of the meshes were sybils", 100*before)
	n.want(0.05)
}

// TestAttackAtDawn: the sybils are there first, and swallow what is published from the
// first message on; each honest node that comes finds them before it finds others.
func TestAttackAtDawn(t *testing.T) {
	n := newNetwork(t, 0)
	n.addSybils(nodes(t)*3/5, netip.Addr{}, everything)
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
	n := established(t, nodes(t)/2)
	for i := range 4 {
		n.addSybils(nodes(t)/8, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), everything)
	}
	n.attack(n.honest, 24)
	n.s.Run(25 * time.Second)
	n.settle()
	n.want(0.05)
}

// spam runs an attack of nodes, one in ten, that tell each of their 20 neighbours
// something every 100 ms.
func spam(t *testing.T, rpc func(n *network, to *pubsubsim.Node) *pubsub.RPC) *network {
	n := established(t, nodes(t)*9/10)
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
	n.want(0.05)
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
	}).want(0.05)
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

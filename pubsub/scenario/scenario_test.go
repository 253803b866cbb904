package scenario

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub/pubsubsim"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
)

// TestKeys: the IDs of 10,000 nodes have the hash that the other implementations check.
func TestKeys(t *testing.T) {
	h := sha256.New()
	for i := range 10000 {
		fmt.Fprintf(h, ">%d:%s\n", i, Key(i).ID())
	}
	if got, want := fmt.Sprintf("%x", h.Sum(nil)), "11395ea896d00ca25f7f648ebb336488ee092096a5498d90d76b92eaec27867a"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A params.json as the test plan writes it, nulls included.
const sample = `{"script": [
  {"type": "ifNodeIDEquals", "nodeID": 0, "instruction": {"type": "initGossipSub", "gossipSubParams": {
    "D": 7, "Dlo": null, "Dhi": 14, "Dscore": null, "Dout": null, "HistoryLength": 6, "HistoryGossip": null, "Dlazy": 0,
    "GossipFactor": 0, "GossipRetransmission": null, "HeartbeatInitialDelay": 100100000, "HeartbeatInterval": 7e8,
    "SlowHeartbeatWarning": 0.1, "FanoutTTL": null, "Connectors": 8, "IDontWantMessageThreshold": 2048}}},
  {"type": "ifNodeIDEquals", "nodeID": 1, "instruction": {"type": "initGossipSub", "gossipSubParams": {}}},
  {"type": "ifNodeIDEquals", "nodeID": 0, "instruction": {"type": "connect", "connectTo": [1]}},
  {"type": "setTopicValidationDelay", "topicID": "a", "delaySeconds": 0.005},
  {"type": "subscribeToTopic", "topicID": "a", "partial": false},
  {"type": "waitUntil", "elapsedSeconds": 3},
  {"type": "ifNodeIDEquals", "nodeID": 1, "instruction": {"type": "publish", "messageID": 31, "messageSizeBytes": 100, "topicID": "a"}},
  {"type": "addPartialMessage", "topicID": "a", "groupID": 5, "parts": 255},
  {"type": "publishPartial", "topicID": "a", "groupID": 5, "publishToNodeIDs": null},
  {"type": "waitUntil", "elapsedSeconds": 5}
]}`

func TestRead(t *testing.T) {
	s, err := Read(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := len(s.For(0)), len(s.For(1)); a != 8 || b != 8 {
		t.Errorf("%d and %d instructions", a, b)
	}
	p := s.For(0)[0].Params.config().Params
	if p.D != 7 || p.Dlo != 5 || p.Dhi != 14 || p.Dlazy != 0 || p.GossipFactor != 0 || p.HeartbeatDelay != 100100*time.Microsecond ||
		p.Heartbeat != 700*time.Millisecond || p.HistoryLength != 6 || p.IDontWantThreshold != 2048 {
		t.Errorf("parameters: %+v", p)
	}
	for _, bad := range []string{
		`{"script": [{"type": "dance"}]}`,
		`{"script": [{"type": "ifNodeIDEquals", "nodeID": 1}]}`,
		`{"script": [{"type": "connect", "connectTo": [-1]}]}`,
		`{"script": [{"type": "publish", "messageSizeBytes": 7}]}`,
		`{"script": [{"type": "publish", "messageSizeBytes": 100000000}]}`,
		`{"script": [{"type": "initGossipSub"}]}`,
		`{"script": [{"type": "initGossipSub", "gossipSubParams": {"D": -1}}]}`,
		`{"script": [{"type": "addPartialMessage", "parts": 256}]}`,
		`{"script": [{"type": "setTopicValidationDelay", "delaySeconds": -1}]}`,
		`{`,
	} {
		if _, err := Read(strings.NewReader(bad)); err == nil {
			t.Errorf("%s is a script", bad)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(sample))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		out, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(bytes.NewReader(out)); err != nil {
			t.Errorf("%s became %s: %v", b, out, err)
		}
	})
}

// What follows makes the scripts that the test plan's experiment.py makes.

type plan struct {
	rand *rand.Rand
	s    Script
	n    int
}

func newPlan(nodes int) *plan {
	p := &plan{rand: rand.New(rand.NewPCG(1, 1)), n: nodes}
	for i := range nodes {
		delay := float64(100*time.Millisecond + time.Duration(i+1)*100*time.Microsecond)
		p.only(i, Instruction{Type: "initGossipSub", Params: &Params{HeartbeatInitialDelay: &delay}})
	}
	return p
}

func (p *plan) all(i Instruction) { p.s.Instructions = append(p.s.Instructions, i) }

func (p *plan) only(node int, i Instruction) {
	p.all(Instruction{Type: "ifNodeIDEquals", NodeID: node, Instruction: &i})
}

func (p *plan) wait(seconds int) { p.all(Instruction{Type: "waitUntil", ElapsedSeconds: seconds}) }

// mesh connects each node to others until it has 20 neighbours.
func (p *plan) mesh() {
	degree := min(20, p.n-1)
	conns := make([]map[int]bool, p.n)
	for i := range conns {
		conns[i] = make(map[int]bool)
	}
	for i := range p.n {
		var to []int
		for len(conns[i]) < degree {
			if j := p.rand.IntN(p.n); j != i && !conns[i][j] {
				conns[i][j], conns[j][i] = true, true
				to = append(to, j)
			}
		}
		p.only(i, Instruction{Type: "connect", ConnectTo: to})
	}
}

// publish lets a random node publish, every so often, count times.
func (p *plan) publish(from, every, count, size int, topics ...string) {
	for i := range count {
		p.wait(from + i*every)
		p.only(p.rand.IntN(p.n), Instruction{Type: "publish", MessageID: uint64(i), MessageSizeBytes: size, TopicID: topics[p.rand.IntN(len(topics))]})
	}
	p.wait(from + count*every)
}

func subnetBlobs(nodes, from, every, count int) *Script {
	p := newPlan(nodes)
	p.all(Instruction{Type: "setTopicValidationDelay", TopicID: "a-subnet", DelaySeconds: 0.005})
	p.mesh()
	p.all(Instruction{Type: "subscribeToTopic", TopicID: "a-subnet"})
	p.publish(from, every, count, 96<<10, "a-subnet")
	return &p.s
}

func simpleFanout(nodes, from, every, count int) *Script {
	p := newPlan(nodes)
	p.mesh()
	for i := range nodes {
		p.only(i, Instruction{Type: "subscribeToTopic", TopicID: []string{"topic-a", "topic-b"}[i%2]})
	}
	p.publish(from, every, count, 1024, "topic-a", "topic-b")
	return &p.s
}

func partialMessages(nodes, from int) *Script {
	p := newPlan(nodes)
	p.mesh()
	p.all(Instruction{Type: "subscribeToTopic", TopicID: "a-subnet", Partial: true})
	p.wait(from)
	all := uint8(0)
	for i := range nodes {
		parts := uint8(p.rand.IntN(256))
		if i == nodes-1 {
			parts |= ^all // somebody has it
		}
		all |= parts
		p.only(i, Instruction{Type: "addPartialMessage", TopicID: "a-subnet", GroupID: 77, Parts: parts})
	}
	p.all(Instruction{Type: "publishPartial", TopicID: "a-subnet", GroupID: 77})
	p.wait(from + 10)
	return &p.s
}

func partialChain(nodes, from, groups int) *Script {
	p := newPlan(nodes)
	for i := range nodes - 1 {
		p.only(i, Instruction{Type: "connect", ConnectTo: []int{i + 1}})
	}
	p.all(Instruction{Type: "subscribeToTopic", TopicID: "chain", Partial: true})
	p.wait(from)
	for g := range groups {
		for i := range 8 {
			p.only((g*8+i)%nodes, Instruction{Type: "addPartialMessage", TopicID: "chain", GroupID: uint64(g), Parts: 1 << i})
		}
	}
	for g := range groups {
		p.wait(from + 2*g + 2)
		p.all(Instruction{Type: "publishPartial", TopicID: "chain", GroupID: uint64(g)})
	}
	p.wait(from + 2*groups + 30)
	return &p.s
}

func partialFanout(nodes, from int) *Script {
	p := newPlan(nodes)
	p.mesh()
	for i := 1; i < nodes; i++ {
		p.only(i, Instruction{Type: "subscribeToTopic", TopicID: "a-subnet", Partial: true})
	}
	p.wait(from)
	p.only(0, Instruction{Type: "addPartialMessage", TopicID: "a-subnet", GroupID: 9, Parts: 0xff})
	var to []int
	for i := 1; i < min(8, nodes); i++ {
		to = append(to, i)
	}
	p.only(0, Instruction{Type: "publishPartial", TopicID: "a-subnet", GroupID: 9, PublishToNodeIDs: to})
	p.wait(from + 10)
	return &p.s
}

// wantReach checks that all subscribers but the publisher got each message.
func wantReach(t *testing.T, s *Script, nodes int, r *Result) {
	t.Helper()
	in := make(map[string]map[int]bool)
	for n := range nodes {
		for _, i := range s.For(n) {
			if i.Type == "subscribeToTopic" {
				if in[i.TopicID] == nil {
					in[i.TopicID] = make(map[int]bool)
				}
				in[i.TopicID][n] = true
			}
		}
	}
	copies, reached := 0, 0
	for n := range nodes {
		for _, i := range s.For(n) {
			if i.Type != "publish" {
				continue
			}
			for x := range in[i.TopicID] {
				c := r.Received[i.MessageID][x]
				if x == n {
					continue
				}
				if copies, reached = copies+c, reached+1; c == 0 {
					t.Errorf("message %d did not reach node %d", i.MessageID, x)
				}
			}
		}
	}
	if reached == 0 {
		t.Error("nothing was published")
	}
	t.Logf("%d nodes: %.2f copies of a message", nodes, float64(copies)/float64(max(reached, 1)))
}

func wantComplete(t *testing.T, groups []uint64, nodes int, r *Result) {
	t.Helper()
	for _, g := range groups {
		if got := len(r.Complete[g]); got != nodes {
			t.Errorf("group %d is complete with %d of %d nodes", g, got, nodes)
		}
	}
}

func upTo(n uint64) (l []uint64) {
	for i := range n {
		l = append(l, i)
	}
	return l
}

// encoded is a script as the others read it.
func encoded(t *testing.T, s *Script) *Script {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	s, err = Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSimulated runs the plan's scenarios on state machines.
func TestSimulated(t *testing.T) {
	run := func(name string, nodes int, s *Script, check func(t *testing.T, s *Script, r *Result)) {
		t.Run(name, func(t *testing.T) {
			s := encoded(t, s)
			r, err := Simulate(s, nodes, 1)
			if err != nil {
				t.Fatal(err)
			}
			check(t, s, r)
		})
	}
	reach := func(nodes int) func(*testing.T, *Script, *Result) {
		return func(t *testing.T, s *Script, r *Result) { wantReach(t, s, nodes, r) }
	}
	run("subnet-blob-msg", 64, subnetBlobs(64, 30, 12, 16), reach(64))
	run("simple-fanout", 64, simpleFanout(64, 30, 12, 16), reach(64))
	run("partial-messages", 32, partialMessages(32, 30), func(t *testing.T, _ *Script, r *Result) { wantComplete(t, []uint64{77}, 32, r) })
	run("partial-messages-chain", 8, partialChain(8, 30, 16), func(t *testing.T, _ *Script, r *Result) { wantComplete(t, upTo(16), 8, r) })
	run("partial-messages-fanout", 8, partialFanout(8, 30), func(t *testing.T, _ *Script, r *Result) { wantComplete(t, []uint64{9}, 8, r) })
}

// collect makes a Result of what nodes log.
type collect struct {
	mu sync.Mutex
	r  *Result
}

// line takes in a line of a node's output.
func (c *collect) line(node int, line []byte) {
	var e struct {
		Msg   string `json:"msg"`
		Time  time.Time
		ID    string `json:"id"`
		Group uint64 `json:"group id"`
	}
	if json.Unmarshal(line, &e) != nil || e.Time.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.Msg {
	case "Received Message":
		id, _ := strconv.ParseUint(e.ID, 10, 64)
		c.r.received(node, id)
	case "All parts received":
		c.r.completed(node, e.Group)
	}
}

type lineWriter func([]byte)

func (w lineWriter) Write(b []byte) (int, error) { w(b); return len(b), nil }

// TestHosts runs scenarios on hosts, in virtual time on the plan's network.
func TestHosts(t *testing.T) {
	run := func(name string, nodes int, s *Script, check func(t *testing.T, s *Script, r *Result)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := onSimnet(t, encoded(t, s), nodes)
				check(t, s, r)
			})
		})
	}
	run("subnet-blob-msg", 12, subnetBlobs(12, 10, 3, 6), func(t *testing.T, s *Script, r *Result) { wantReach(t, s, 12, r) })
	run("simple-fanout", 12, simpleFanout(12, 10, 3, 6), func(t *testing.T, s *Script, r *Result) { wantReach(t, s, 12, r) })
	run("partial-messages", 8, partialMessages(8, 10), func(t *testing.T, _ *Script, r *Result) { wantComplete(t, []uint64{77}, 8, r) })
	run("partial-messages-fanout", 8, partialFanout(8, 10), func(t *testing.T, _ *Script, r *Result) { wantComplete(t, []uint64{9}, 8, r) })
}

func onSimnet(t *testing.T, s *Script, nodes int) *Result {
	w := pubsubsim.NewWorld(1)
	net := simnet.New(simnet.Config{})
	defer net.Close()
	c := &collect{r: newResult()}
	var sims []*simnet.Host
	var all []*Node
	for i := range nodes {
		sim := net.Host(fmt.Sprintf("10.0.%d.1", i))
		bits := w.Place()
		sim.SetAccess(simnet.Link{Bandwidth: int64(bits)}, simnet.Link{Bandwidth: int64(bits)})
		for j, other := range sims {
			net.SetPath(sim, other, simnet.Link{Latency: w.Between(i, j)})
		}
		sims = append(sims, sim)
		h, err := plexus.New(plexus.Config{
			Key: Key(i), Network: sim, Pipes: []transport.Pipes{&tcp.Transport{Network: sim}},
			Security: []security.Protocol{&noise.Protocol{}}, Muxers: []muxer.Muxer{&yamux.Muxer{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if err := h.Listen(t.Context(), ma.StringCast("/ip4/0.0.0.0/tcp/9000")); err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.NewJSONHandler(lineWriter(func(b []byte) { c.line(i, b) }), nil))
		all = append(all, &Node{Number: i, Host: h, Start: time.Now(), Log: log, Dial: func(ctx context.Context, to int) error {
			addr := ma.StringCast(fmt.Sprintf("/ip4/10.0.%d.1/tcp/9000", to))
			_, err := h.Dial(ctx, peer.AddrInfo{ID: Key(to).ID(), Addrs: []ma.Multiaddr{addr}})
			return err
		}})
	}
	var wg sync.WaitGroup
	for _, n := range all {
		wg.Go(func() {
			if err := n.Run(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return c.r
}

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
)

type topicCmd struct {
	Topic    string        `arg:"" name:"TOPIC" help:"What to look at."`
	Scores   bool          `help:"Judge the peers, and show what each one's score is made of."`
	Interval time.Duration `short:"i" default:"1s" placeholder:"1s" help:"From one picture to the next."`
	Count    int           `short:"n" placeholder:"N" help:"Stop after so many pictures. Default: at ^C."`
	pubsubFlags
}

func (topicCmd) Help() string {
	return `Joins the topic as a node that passes messages on, and shows its neighbours: whether they are in
the mesh, how many messages each was the first to bring, how many it brought that were known, and
what happens a second. On a terminal the picture stays in its place.

With --scores, gossipsub judges them after its v1.1: time in the mesh and first deliveries count
for a peer, invalid messages and misbehaviour against it. A peer below 0 leaves the mesh. P7, its
misbehaviour, is to offer messages and not to send them, to come back into the mesh before its
back-off ends, to ask for messages that it was not offered, or for one again and again, and to say
of far more messages than there are that it does not want them.

Examples:

  plexus topic news --peer ADDR
  plexus topic news --peer ADDR --scores -n 1 --interval 10s
  plexus topic news --json --peer ADDR | jq '.peers[] | {peer, score}'`
}

// picture is how a topic looks at a time, from here.
type picture struct {
	Topic   string            `json:"topic"`
	Router  string            `json:"router"`
	Uptime  millis            `json:"uptime_ms"`
	Mesh    int               `json:"mesh"`
	Peers   []neighbour       `json:"peers"`
	Rates   rates             `json:"per_second"`
	Dropped map[string]uint64 `json:"dropped"` // since the beginning, by reason
}

// neighbour is one of a picture's peers.
type neighbour struct {
	Peer       peer.ID `json:"peer"`
	Protocol   string  `json:"protocol"`
	Mesh       millis  `json:"mesh_ms,omitempty"` // how long it is in the mesh
	InMesh     bool    `json:"in_mesh"`
	First      uint64  `json:"first"`      // messages that it was the first to bring
	Duplicates uint64  `json:"duplicates"` // and those that were known
	Invalid    uint64  `json:"invalid"`
	Score      *scored `json:"score,omitempty"`
}

// scored is a peer's score in its parts, under the names of the spec.
type scored struct {
	Total       float64 `json:"total"`
	TimeInMesh  float64 `json:"p1_time_in_mesh"`
	First       float64 `json:"p2_first_deliveries"`
	Deliveries  float64 `json:"p3_mesh_deliveries"`
	Failures    float64 `json:"p3b_mesh_failures"`
	Invalid     float64 `json:"p4_invalid_messages"`
	Cap         float64 `json:"topic_cap"`
	Application float64 `json:"p5_application"`
	Colocation  float64 `json:"p6_ip_colocation"`
	Behaviour   float64 `json:"p7_behaviour"`
}

// parts are the summands of a score, for people.
func (r *scored) parts() []string {
	var l []string
	for _, p := range []struct {
		name string
		v    float64
	}{
		{"P1 time in mesh", r.TimeInMesh}, {"P2 first deliveries", r.First}, {"P3 mesh deliveries", r.Deliveries},
		{"P3b mesh failures", r.Failures}, {"P4 invalid messages", r.Invalid}, {"topic cap", r.Cap},
		{"P5 application", r.Application}, {"P6 IP colocation", r.Colocation}, {"P7 behaviour", r.Behaviour},
	} {
		l = append(l, fmt.Sprintf("%8s  %s", points(p.v), p.name))
	}
	return l
}

// points is a part of a score: "+1.5", "-10", "0".
func points(v float64) string {
	if v > -0.005 && v < 0.005 {
		return "0"
	}
	return strings.TrimSuffix(fmt.Sprintf("%+.2f", v), ".00")
}

// rates are what happens a second.
type rates struct {
	Received   float64 `json:"received"` // messages, the same one as often as it comes
	Duplicates float64 `json:"duplicates"`
	Sent       float64 `json:"sent"`
	In         float64 `json:"bytes_in"`
	Out        float64 `json:"bytes_out"`
}

// sample is what pubsub had counted at a time.
type sample struct {
	at time.Time
	pubsub.Stats
}

// since returns what happened a second between two samples. A tick that comes late
// makes the time between them longer than the interval.
func (now sample) since(last sample) rates {
	span := max(now.at.Sub(last.at), time.Microsecond).Seconds()
	per := func(now, last uint64) float64 { return float64(now-last) / span }
	return rates{
		Received: per(now.Received, last.Received), Duplicates: per(now.Duplicates, last.Duplicates),
		Sent: per(now.Sent, last.Sent), In: per(now.BytesIn, last.BytesIn), Out: per(now.BytesOut, last.BytesOut),
	}
}

func (picture) event() string { return "topic" }

func (r picture) text(s style) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s, %s, %d in the mesh, for %s\n", s.bold(clean(r.Topic)), r.Router, count(len(r.Peers), "peer"), r.Mesh, r.Uptime)
	fmt.Fprintf(&b, "%s %s/s of which %s known; %s/s    %s %s/s; %s/s\n",
		s.dim("in"), rate(r.Rates.Received), rate(r.Rates.Duplicates), size(r.Rates.In), s.dim("out"), rate(r.Rates.Sent), size(r.Rates.Out))
	for _, name := range slices.Sorted(maps.Keys(r.Dropped)) {
		fmt.Fprintf(&b, "%s %d  %s\n", s.red("dropped"), r.Dropped[name], name)
	}
	if len(r.Peers) == 0 {
		return b.String() + s.dim("nobody is here yet")
	}
	head := fmt.Sprintf("%-8s  %-17s %9s %9s %9s %9s", "peer", "speaks", "mesh", "first", "known", "invalid")
	if r.Peers[0].Score != nil {
		head += "     score"
	}
	fmt.Fprintf(&b, "%s\n", s.dim(head))
	for _, p := range r.Peers {
		mesh := fmt.Sprintf("%9s", "-")
		switch {
		case p.InMesh && p.Mesh > 0:
			mesh = s.green(fmt.Sprintf("%9s", p.Mesh))
		case p.InMesh:
			mesh = s.green(fmt.Sprintf("%9s", "yes")) // floodsub's comes and goes with the subscription
		}
		fmt.Fprintf(&b, "%s  %-17s %s %9d %9d %9d", colourOf(s, p.Peer, p.Peer.Short()), clean(strings.TrimPrefix(p.Protocol, "/")), mesh, p.First, p.Duplicates, p.Invalid)
		if p.Score == nil {
			b.WriteByte('\n')
			continue
		}
		total := fmt.Sprintf("%10s", points(p.Score.Total))
		if p.Score.Total < 0 {
			total = s.red(total)
		}
		b.WriteString(total + "\n")
		parts := p.Score.parts()
		for row := range slices.Chunk(parts, 3) {
			line := "  "
			for _, part := range row {
				line += pad(part, 30)
			}
			fmt.Fprintf(&b, "%s\n", s.dim(strings.TrimRight(line, " ")))
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func rate(v float64) string {
	if v == 0 || v >= 10 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// ledger counts what the neighbours do. It hears of it by pubsub.Config.Trace.
type ledger struct {
	topic string

	mu    sync.Mutex
	peers map[peer.ID]*account
	of    map[pubsub.MessageID]bool // messages of the topic; all others are not counted
}

type account struct {
	protocol                   string
	first, duplicates, invalid uint64
	grafted                    time.Time // zero: it is not in the mesh
}

// maxTold bounds how many messages a ledger remembers.
const maxTold = 1 << 16

func (l *ledger) hear(ev pubsub.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch ev := ev.(type) {
	case pubsub.PeerAdded:
		l.peers[ev.Peer] = &account{protocol: ev.Protocol}
	case pubsub.PeerRemoved:
		delete(l.peers, ev.Peer)
	case pubsub.Grafted:
		if a := l.peers[ev.Peer]; a != nil && ev.Topic == l.topic {
			a.grafted = time.Now()
		}
	case pubsub.Pruned:
		if a := l.peers[ev.Peer]; a != nil && ev.Topic == l.topic {
			a.grafted = time.Time{}
		}
	case pubsub.Decided:
		a := l.peers[ev.Peer]
		if a == nil || ev.Topic != l.topic {
			return
		}
		if ev.Outcome == pubsub.Rejected || ev.Outcome == pubsub.Forged {
			a.invalid++
			return
		}
		a.first++
		if len(l.of) >= maxTold {
			clear(l.of)
		}
		l.of[ev.ID] = true
	case pubsub.Duplicate:
		if a := l.peers[ev.Peer]; a != nil && l.of[ev.ID] {
			a.duplicates++
		}
	}
}

// judge is how peers are judged under --scores.
func (c *topicCmd) judge() *gossipsub.ScoreParams {
	return &gossipsub.ScoreParams{
		Thresholds: gossipsub.Thresholds{Gossip: -100, Publish: -200, Graylist: -400},
		Topics: map[string]*gossipsub.TopicScoreParams{c.Topic: {
			TopicWeight:      1,
			TimeInMeshWeight: 0.01, TimeInMeshQuantum: time.Second, TimeInMeshCap: 3600,
			FirstDeliveriesWeight: 1, FirstDeliveriesDecay: gossipsub.Decay(10*time.Minute, time.Second), FirstDeliveriesCap: 100,
			InvalidWeight: -100, InvalidDecay: gossipsub.Decay(time.Hour, time.Second),
		}},
		BehaviourWeight: -10, BehaviourDecay: gossipsub.Decay(time.Hour, time.Second),
	}
}

func (c *topicCmd) Run(e *env) error {
	if c.Count < 0 || c.Interval <= 0 {
		return &failure{Kind: kindUsage, Text: "-n must not be negative, and --interval more than 0"}
	}
	if c.Scores && c.Router != "gossipsub" {
		return &failure{Kind: kindUsage, Text: "--scores are gossipsub's: " + c.Router + " has none"}
	}
	g := gossipsub.Default()
	if c.Scores {
		g.Score = c.judge()
	}
	l := &ledger{topic: c.Topic, peers: make(map[peer.ID]*account), of: make(map[pubsub.MessageID]bool)}
	m, err := c.join(e, c.Topic, g, pubsub.Config{Trace: l.hear})
	if err != nil {
		return err
	}
	defer m.Close()
	m.topic.Relay()
	if err := m.connect(); err != nil {
		return err
	}
	m.announce()
	begin := time.Now()
	tick := time.NewTicker(c.Interval)
	defer tick.Stop()
	last, height := sample{begin, m.pubsub.Stats()}, 0
	for n := 0; (c.Count == 0 || n < c.Count) && e.out.failed() == nil; n++ {
		select {
		case <-tick.C:
		case <-e.ctx.Done():
			return nil
		}
		now := sample{time.Now(), m.pubsub.Stats()}
		p := c.look(m, l)
		p.Uptime, p.Rates = millis(now.at.Sub(begin)), now.since(last)
		for r, n := range now.Dropped {
			p.Dropped[r.String()] = n
		}
		last = now
		height = draw(e.out, p, height)
	}
	return nil
}

// draw prints a picture; on a terminal over the one before, which had so many lines.
func draw(out *printer, p picture, height int) int {
	if !out.style.terminal || out.json {
		out.print(p)
		out.say("")
		return 0
	}
	if height > 0 {
		out.say("\x1b[%dA\x1b[J\x1b[1A", height) // up, clear to the end; say ends the line
	}
	out.print(p)
	height = 0
	for line := range strings.Lines(p.text(style{})) {
		height += 1 + max(0, columns(strings.TrimSuffix(line, "\n"))-1)/out.style.width
	}
	return height
}

// look makes a picture, but for what pubsub counts.
func (c *topicCmd) look(m *member, l *ledger) picture {
	p := picture{Topic: c.Topic, Router: c.Router, Peers: []neighbour{}, Dropped: make(map[string]uint64)}
	mesh := make(map[peer.ID]bool)
	for _, id := range m.pubsub.Mesh(c.Topic) {
		mesh[id] = true
	}
	p.Mesh = len(mesh)
	scores := make(map[peer.ID]*scored)
	if c.Scores {
		for s := range m.pubsub.Scores() {
			scores[s.Peer] = scoreOf(s, c.Topic)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range m.pubsub.Peers(c.Topic) {
		n := neighbour{Peer: id, InMesh: mesh[id], Score: scores[id]}
		if a := l.peers[id]; a != nil {
			n.Protocol, n.First, n.Duplicates, n.Invalid = a.protocol, a.first, a.duplicates, a.invalid
			if mesh[id] && !a.grafted.IsZero() {
				n.Mesh = millis(time.Since(a.grafted))
			}
		}
		p.Peers = append(p.Peers, n)
	}
	slices.SortFunc(p.Peers, func(a, b neighbour) int {
		if a.InMesh != b.InMesh {
			if a.InMesh {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.First, a.First), cmp.Compare(a.Peer, b.Peer))
	})
	return p
}

// scoreOf is a score with the parts of one topic; those of other topics, of which
// there are none here, would be in the total only.
func scoreOf(s pubsub.Score, topic string) *scored {
	r := &scored{
		Total: s.Total, Cap: s.TopicCap, Application: s.Application, Colocation: s.Colocation, Behaviour: s.Behaviour,
	}
	for _, t := range s.Topics {
		if t.Topic == topic {
			r.TimeInMesh, r.First, r.Deliveries, r.Failures, r.Invalid = t.TimeInMesh, t.First, t.Deliveries, t.Failures, t.Invalid
		}
	}
	return r
}

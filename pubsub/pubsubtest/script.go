package pubsubtest

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

// Script runs a script of what peers do, and of what the router is to do about it:
//
//	# a comment, best the sentence of a spec
//	router NAME=VALUE…        the first command; makes the router
//	peer x meshsub/1.1.0 [out] [ip=10.0.0.1]
//	gone x
//	sub x topic [requests|supports]    unsub x topic
//	join topic [requests|supports]     leave topic
//	publish m1 topic [size=N]
//	recv x m1 topic [size=N] [by=y] [accepted|rejected|ignored|throttled|forged|pending|unverified] [fake=1]
//	decide m1 accepted [fake=1]
//	have x m1                 another copy
//	graft x topic     prune x topic [backoff=60s] [px=y,z]
//	ihave x topic m1…    iwant x m1…    idontwant x m1…    (all IDs in one message)
//	missed x m1
//	extensions x [partial]    partial x topic group [message] [metadata]
//	wait 10s                  ticks as they are due
//	mesh topic   score x   admit x   seen m1     to look at something
//
// After a command stand the actions that it causes, in any order, one a line that begins
// with "> ": "> send x m1", "> graft x topic", and what router's callbacks note. Names of
// peers are their IDs. Where update is set, the actions are written into the script
// instead; then read them.
func Script(t *testing.T, path string, update bool, router func(set map[string]string, note func(string)) (pubsub.Router, error)) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{router: router, now: time.Unix(1e9, 0), messages: make(map[string]*pubsub.Message)}
	var out []string
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		out = append(out, line)
		cmd, _, _ := strings.Cut(line, "#")
		words := strings.Fields(cmd)
		if len(words) == 0 {
			continue
		}
		var want []string
		at := i + 1
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "> ") {
			i++
			want = append(want, strings.TrimPrefix(lines[i], "> "))
		}
		got, err := s.run(words[0], words[1:])
		if err != nil {
			t.Fatalf("%s:%d: %s: %v", path, at, line, err)
		}
		slices.Sort(got)
		for _, g := range got {
			out = append(out, "> "+g)
		}
		slices.Sort(want)
		if !update && !slices.Equal(got, want) {
			t.Errorf("%s:%d: %s\ngot  %s\nwant %s", path, at, line, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
	if update {
		if err := os.WriteFile(path, []byte(strings.Join(out, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

type script struct {
	router   func(map[string]string, func(string)) (pubsub.Router, error)
	c        *pubsub.Core
	a        pubsub.Actions
	now      time.Time
	messages map[string]*pubsub.Message
	notes    []string // of the router's callbacks
}

// args splits the words of a command into NAME=VALUE and others.
func args(words []string) (plain []string, set map[string]string) {
	set = make(map[string]string)
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			set[k] = v
		} else {
			plain = append(plain, w)
		}
	}
	return plain, set
}

func (s *script) run(cmd string, words []string) (got []string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	w, set := args(words)
	if cmd == "router" {
		r, err := s.router(set, s.note)
		if err != nil {
			return []string{"error " + err.Error()}, nil
		}
		s.c = pubsub.NewCore(s.now, pubsub.CoreConfig{Self: "self", Seed: 1, Record: func(id peer.ID) []byte { return []byte("record of " + id) }}, r, &s.a)
		return s.actions(), nil
	}
	var p *pubsub.Peer
	switch cmd {
	case "peer", "join", "leave", "publish", "decide", "wait", "mesh", "seen":
	default:
		if p = s.c.Peer(peer.ID(w[0])); p == nil {
			return nil, fmt.Errorf("no peer %s", w[0])
		}
	}
	rpc := new(pubsub.RPC)
	switch cmd {
	case "peer":
		n := &pubsub.Peer{ID: peer.ID(w[0]), Protocol: "/" + w[1], Outbound: slices.Contains(w, "out")}
		if ip := set["ip"]; ip != "" {
			n.IP = netip.MustParseAddr(ip)
		}
		s.c.AddPeer(s.now, n, &s.a)
	case "gone":
		s.c.RemovePeer(s.now, p, &s.a)
	case "sub", "unsub":
		rpc.Subs = []pubsub.SubOpts{subOpts(w[1:], cmd == "sub")}
	case "join":
		s.c.Join(s.now, subOpts(w, true), &s.a)
	case "leave":
		s.c.Leave(s.now, w[0], &s.a)
	case "publish":
		if !s.c.Publish(s.now, s.message(w[0], w[1], set), &s.a) {
			got = append(got, "known")
		}
	case "recv":
		m := s.message(w[1], w[2], set)
		if !s.c.Receive(s.now, p, m, &s.a) {
			got = append(got, "known")
			break
		}
		verdict := "accepted"
		if len(w) > 3 {
			verdict = w[3]
		}
		if verdict == "unverified" {
			break
		}
		if verdict == "forged" {
			s.c.Decide(s.now, m, pubsub.Forged, &s.a)
			break
		}
		if !s.c.Verified(s.now, m, &s.a) {
			got = append(got, "known")
			break
		}
		if verdict != "pending" {
			s.c.Decide(s.now, m, outcome(verdict), &s.a)
		}
	case "decide":
		s.c.Decide(s.now, s.messages[w[0]+set["fake"]], outcome(w[1]), &s.a)
	case "have":
		copied := *s.messages[w[1]]
		if s.c.Receive(s.now, p, &copied, &s.a) {
			got = append(got, "new")
		}
	case "graft":
		rpc.Control.Graft = w[1:]
	case "prune":
		pr := pubsub.Prune{Topic: w[1]}
		if b := set["backoff"]; b != "" {
			pr.Backoff = must(time.ParseDuration(b))
		}
		if px := set["px"]; px != "" {
			for _, name := range strings.Split(px, ",") {
				pr.Peers = append(pr.Peers, pubsub.PX{ID: ID(name)})
			}
		}
		rpc.Control.Prune = []pubsub.Prune{pr}
	case "ihave":
		rpc.Control.IHave = []pubsub.IHave{{Topic: w[1], IDs: messageIDs(w[2:])}}
	case "iwant":
		rpc.Control.IWant = messageIDs(w[1:])
	case "idontwant":
		rpc.Control.IDontWant = messageIDs(w[1:])
	case "extensions":
		rpc.Control.Extensions = &pubsub.Extensions{Partial: slices.Contains(w, "partial")}
	case "partial":
		rpc.Partial = &pubsub.Partial{Topic: w[1], Group: []byte(w[2])}
		if len(w) > 3 {
			rpc.Partial.Message = []byte(w[3])
		}
		if len(w) > 4 {
			rpc.Partial.Metadata = []byte(w[4])
		}
	case "missed":
		s.c.Router().Missed(s.now, p, s.messages[w[1]])
	case "wait":
		end := s.now.Add(must(time.ParseDuration(w[0])))
		for due := s.c.Due(); !due.IsZero() && !due.After(end); due = s.c.Due() {
			s.now = due
			s.c.Tick(due, &s.a)
		}
		s.now = end
	case "mesh":
		names := []string{"mesh"}
		for _, p := range s.c.Router().Mesh(w[0]) {
			names = append(names, string(p.ID))
		}
		slices.Sort(names[1:])
		got = append(got, strings.Join(names, " "))
	case "score":
		for _, sc := range s.c.Router().Scores(s.now) {
			if sc.Peer == p.ID {
				got = append(got, fmt.Sprintf("score %.4g", sc.Total))
			}
		}
	case "admit":
		got = append(got, [...]string{"all", "control", "nothing"}[s.c.Router().Admit(s.now, p)])
	case "seen":
		got = append(got, strconv.FormatBool(s.c.Seen([]byte(w[0]))))
	default:
		return nil, fmt.Errorf("no such command")
	}
	if rpc.Subs != nil || !rpc.Control.IsZero() || rpc.Partial != nil {
		if s.c.Open(s.now, p, rpc, &s.a) != pubsub.AdmitNone {
			s.c.Close(s.now, p, rpc, &s.a)
		}
	}
	return append(got, s.actions()...), nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func subOpts(w []string, on bool) pubsub.SubOpts {
	requests := slices.Contains(w, "requests")
	return pubsub.SubOpts{Topic: w[0], Subscribe: on, RequestsPartial: requests, SupportsPartial: requests || slices.Contains(w, "supports")}
}

// ID is a well-formed peer ID that tells its name: the hash of nothing that exists.
func ID(name string) peer.ID {
	b := []byte("\x12\x20" + strings.Repeat(".", 32))
	copy(b[2:], name)
	return peer.ID(b)
}

// name is a peer's name, from an ID of [ID] or from one that is its name.
func name(id peer.ID) string {
	return strings.TrimRight(strings.TrimPrefix(string(id), "\x12\x20"), ".")
}

func messageIDs(names []string) (ids [][]byte) {
	for _, n := range names {
		ids = append(ids, []byte(n))
	}
	return ids
}

// message makes a message, or a copy of the one with that ID.
func (s *script) message(id, topic string, set map[string]string) *pubsub.Message {
	size := 8
	if v := set["size"]; v != "" {
		size = must(strconv.Atoi(v))
	}
	data := make([]byte, size)
	copy(data, id+set["fake"])
	m := pubsub.NewMessage(topic, data)
	m.ID = pubsub.MessageID(id)
	m.From = peer.ID(set["by"])
	s.messages[id+set["fake"]] = m
	return m
}

func outcome(s string) pubsub.Outcome {
	for o := pubsub.Accepted; o <= pubsub.Forged; o++ {
		if o.String() == s {
			return o
		}
	}
	panic("no outcome " + s)
}

// note adds a line to the actions of the command that is run: for a router's callbacks.
func (s *script) note(line string) { s.notes = append(s.notes, line) }

// actions tells what is to be done, and empties s.a.
func (s *script) actions() (l []string) {
	join := func(parts ...string) {
		l = append(l, strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " "))
	}
	for _, d := range s.a.Sends {
		join("send", string(d.To.ID), string(d.Message.ID))
	}
	for _, d := range s.a.Controls {
		to := string(d.To.ID)
		if m := d.Partial; m != nil {
			join("partial", to, m.Topic, string(m.Group), string(m.Message), string(m.Metadata))
			continue
		}
		for _, t := range d.Control.Graft {
			join("graft", to, t)
		}
		for _, p := range d.Control.Prune {
			px, back := "", ""
			var names []string
			for _, x := range p.Peers {
				names = append(names, name(x.ID))
				if string(x.Record) != "record of "+string(x.ID) {
					panic("PX without the peer's record")
				}
			}
			slices.Sort(names)
			if len(names) > 0 {
				px = "px=" + strings.Join(names, ",")
			}
			if p.Backoff > 0 {
				back = "backoff=" + p.Backoff.String()
			}
			join("prune", to, p.Topic, back, px)
		}
		for _, h := range d.Control.IHave {
			join("ihave", to, h.Topic, sorted(h.IDs))
		}
		if ids := d.Control.IWant; ids != nil {
			join("iwant", to, sorted(ids))
		}
		if ids := d.Control.IDontWant; ids != nil {
			join("idontwant", to, sorted(ids))
		}
	}
	for _, c := range s.a.Connects {
		join("connect", name(c.Info.ID))
	}
	s.a.Reset()
	l = append(l, s.notes...)
	s.notes = nil
	return l
}

func sorted(ids [][]byte) string {
	var l []string
	for _, id := range ids {
		l = append(l, string(id))
	}
	slices.Sort(l)
	return strings.Join(l, " ")
}

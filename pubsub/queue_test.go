package pubsub

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// message makes a message whose frame has so many bytes or a few more.
func message(id string, size int) *Message {
	m := NewMessage("t", make([]byte, size))
	m.ID = MessageID(id)
	return m
}

// Subscriptions and control messages go first, then own messages, then others'; own ones
// leave others a quarter of each batch.
func TestQueueOrder(t *testing.T) {
	q := Queue{Own: 1 << 20, Forward: 1 << 20}
	for i := range 100 {
		q.Push(message(fmt.Sprint("f", i), 1000), false)
		q.Push(message(fmt.Sprint("o", i), 1000), true)
	}
	q.Control(&Control{Graft: []string{"g"}})
	q.Announce(SubOpts{Topic: "s", Subscribe: true})
	q.Partial(&Partial{Topic: "p"})
	b, large, n := q.Next(nil)
	l := rpcs(t, b)
	if l[0].Subs == nil || l[1].Control.Graft == nil || l[2].Partial == nil || large != nil || len(b) > maxBatch {
		t.Errorf("the first three are %+v", l[:3])
	}
	if left := 200 - q.Len(); n != left || n < 60 || len(q.where) != q.Len() {
		t.Errorf("%d messages in a batch, %d left", n, q.Len())
	}
	forwarded := 0
	for id := range q.where {
		if strings.HasPrefix(string(id), "f") {
			forwarded++
		}
	}
	if took := 100 - forwarded; took < n/5 || took > n/3 {
		t.Errorf("%d of %d messages were others'", took, n)
	}
	for b, _, _ := q.Next(nil); len(b) > 0; b, _, _ = q.Next(nil) {
	}
	if q.Len() != 0 || q.Size() != 0 || q.where != nil {
		t.Errorf("%d messages, %d bytes are left", q.Len(), q.Size())
	}
}

func TestQueueBounds(t *testing.T) {
	q := Queue{Own: 3000, Forward: 2000}
	count := func(own bool) (n int) {
		for q.Push(message(fmt.Sprintf("%v%d", own, n), 900), own) {
			n++
		}
		return n
	}
	if own, fwd := count(true), count(false); own != 3 || fwd != 2 {
		t.Errorf("there is room for %d own messages and %d others'", own, fwd)
	}
	if !q.Push(message("true0", 900), true) || q.Len() != 5 {
		t.Error("what waits already is queued again, or refused")
	}
	if !q.Cancel([]byte("true0")) || q.Cancel([]byte("true0")) || !q.Cancel([]byte("false1")) || q.Cancel([]byte("x")) {
		t.Error("cancelling")
	}
	if !q.Push(message("again", 900), true) {
		t.Error("cancelling makes no room")
	}
	q.Clear()
	if q.Len() != 0 || !q.Push(message("large", 100000), true) || q.Push(message("more", 1), true) {
		t.Error("a message larger than the bound finds room in an empty queue only")
	}
	b, large, n := q.Next(nil)
	if len(b) != 0 || len(large) < 100000 || n != 1 || q.Size() != 0 {
		t.Errorf("a large message: %d and %d bytes", len(b), len(large))
	}

	ihave := &Control{IHave: []IHave{{Topic: "t", IDs: [][]byte{make([]byte, 1000)}}}}
	n = 0
	for {
		full, ok := q.Control(ihave)
		if !ok {
			if full != GossipQueueFull {
				t.Errorf("gossip: %v", full)
			}
			break
		}
		n++
	}
	if n < maxControl/1100 || q.Size() > maxControl+2000 {
		t.Errorf("%d IHAVE, %d bytes", n, q.Size())
	}
	for {
		full, ok := q.Control(&Control{Graft: []string{strings.Repeat("t", 1000)}})
		if !ok {
			if full != ControlQueueFull {
				t.Errorf("GRAFT: %v", full)
			}
			break
		}
	}
	if q.Size() < 2*maxControl || q.Size() > 2*maxControl+2000 {
		t.Errorf("%d bytes of control messages", q.Size())
	}
	q.Clear()
	for q.Partial(&Partial{Topic: "t", Message: make([]byte, 500)}) {
	}
	if q.Size() > 2600 {
		t.Errorf("%d bytes of partial messages", q.Size())
	}
}

// What goes into one RPC is what deployed peers take.
func TestPages(t *testing.T) {
	var q Queue
	var ids [][]byte
	for i := range 2000 {
		ids = append(ids, fmt.Appendf(nil, "%032d", i))
	}
	c := &Control{IHave: []IHave{{Topic: "t", IDs: ids}}, IWant: ids, IDontWant: ids[:95], Graft: []string{"g"}}
	for i := range 300 {
		q.Announce(SubOpts{Topic: fmt.Sprint("topic", i), Subscribe: true})
		c.Prune = append(c.Prune, Prune{Topic: fmt.Sprint(i), Backoff: time.Minute})
	}
	q.Control(c)
	have, want, dont, subs, prunes := 0, 0, 0, 0, 0
	for {
		b, _, _ := q.Next(nil)
		if len(b) == 0 {
			break
		}
		for _, r := range rpcs(t, b) {
			if n := len(r.Append(nil)); n > maxPage+16 || len(r.Subs) > maxPageSubs || len(r.Control.IDontWant) > maxPageDontWant {
				t.Errorf("an RPC of %d bytes, with %d subscriptions, %d IDs of IDONTWANT", n, len(r.Subs), len(r.Control.IDontWant))
			}
			for _, h := range r.Control.IHave {
				have += len(h.IDs)
			}
			want += len(r.Control.IWant)
			dont += len(r.Control.IDontWant)
			subs += len(r.Subs)
			prunes += len(r.Control.Prune)
		}
	}
	if have != 2000 || want != 2000 || dont != 95 || subs != 300 || prunes != 300 {
		t.Errorf("%d offered, %d wanted, %d not wanted, %d subscriptions, %d prunes", have, want, dont, subs, prunes)
	}
}

func TestSeen(t *testing.T) {
	now := time.Unix(1e9, 0)
	id := func(i int) MessageID { return MessageID(fmt.Sprintf("%08d", i)) }
	s := newSeen(time.Minute, 100, 1<<20)
	for i := range 150 {
		if !s.add(now, id(i)) || s.add(now, id(i)) {
			t.Fatal("an ID is new once")
		}
	}
	if s.n != 100 || s.early != 50 || s.has(id(49)) || !s.has(id(50)) {
		t.Errorf("%d IDs, %d forgotten early", s.n, s.early)
	}
	s.expire(now.Add(time.Minute - 1))
	if s.n != 100 {
		t.Error("forgotten before their time")
	}
	s.expire(now.Add(time.Minute))
	if s.n != 0 || s.size != 0 || len(s.ids) != 0 || !s.add(now, id(149)) {
		t.Errorf("%d IDs, %d bytes are left", s.n, s.size)
	}
	s = newSeen(time.Minute, 1000, 10*(8+seenCost))
	for i := range 20 {
		s.add(now, id(i))
	}
	if s.n != 10 || s.size > s.bytes || s.early != 10 {
		t.Errorf("%d IDs in %d bytes, %d forgotten early", s.n, s.size, s.early)
	}
	s.add(now, MessageID(strings.Repeat("x", 5*(8+seenCost)-seenCost)))
	if s.n != 6 || s.size > s.bytes {
		t.Errorf("with a long one %d IDs in %d bytes", s.n, s.size)
	}
}

func TestInterleave(t *testing.T) {
	var peers []*Peer
	for i := range 3 {
		peers = append(peers, &Peer{Protocol: fmt.Sprint(i)})
	}
	var sends []Send
	for m := range 4 {
		for _, p := range peers {
			sends = append(sends, Send{To: p, own: m + 1})
		}
	}
	got := ""
	for _, s := range interleave(sends, 4) {
		got += fmt.Sprintf("%d>%s ", s.own, s.To.Protocol)
	}
	if want := "1>0 2>1 3>2 4>0 1>1 2>2 3>0 4>1 1>2 2>0 3>1 4>2 "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

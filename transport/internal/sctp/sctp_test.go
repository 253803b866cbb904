package sctp

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// end is an association and what it has told.
type end struct {
	*Association
	got       map[uint16][]byte
	unread    map[uint16]bool // streams that are not read
	held      map[uint16]int
	peerReset []uint16
	resetDone []uint16
	tooLong   []uint16
	ended     error
}

// network carries packets between two ends, in virtual time.
type network struct {
	t       testing.TB
	now     time.Time
	ends    [2]*end
	latency time.Duration
	loss    float64
	shuffle float64
	rate    float64 // bytes a second; 0: any
	free    [2]time.Time
	queue   int // bytes that may wait for the link; 0: any
	rng     *rand.Rand
	flying  []flying
	packets int
	dropped int
	filter  func(to int, packet []byte) []byte // nil: none
}

type flying struct {
	at   time.Time
	to   int
	data []byte
}

func newNetwork(t testing.TB, latency time.Duration, loss float64) *network {
	n := &network{t: t, now: time.Unix(1e9, 0), latency: latency, loss: loss, rng: rand.New(rand.NewPCG(1, 2))}
	for i := range n.ends {
		e := &end{got: make(map[uint16][]byte), unread: make(map[uint16]bool), held: make(map[uint16]int)}
		e.Association = New(n.now, Events{
			Message: func(stream uint16, _ uint32, msg []byte) {
				if e.unread[stream] {
					e.held[stream] += len(msg)
					return
				}
				e.got[stream] = append(e.got[stream], msg...)
				e.Consume(len(msg))
			},
			Established: func() {},
			Sent:        func(uint16, int) {},
			TooLong:     func(id uint16) { e.tooLong = append(e.tooLong, id) },
			PeerReset:   func(id uint16) { e.peerReset = append(e.peerReset, id) },
			ResetDone:   func(id uint16) { e.resetDone = append(e.resetDone, id) },
			Ended:       func(err error) { e.ended = err },
		})
		n.ends[i] = e
	}
	return n
}

// flush sends what the ends have to send.
func (n *network) flush() {
	for i, e := range n.ends {
		for {
			b := e.Next(n.now, nil)
			if len(b) == 0 {
				break
			}
			if len(b) > PacketSize {
				n.t.Fatalf("packet of %d bytes", len(b))
			}
			n.packets++
			if n.rng.Float64() < n.loss {
				n.dropped++
				continue
			}
			at := n.now
			if n.rate > 0 {
				if n.free[i].Before(at) {
					n.free[i] = at
				}
				if n.queue > 0 && n.free[i].Sub(at).Seconds()*n.rate > float64(n.queue) {
					n.dropped++
					continue
				}
				n.free[i] = n.free[i].Add(time.Duration(float64(len(b)) / n.rate * 1e9))
				at = n.free[i]
			}
			at = at.Add(n.latency)
			if n.rng.Float64() < n.shuffle {
				at = at.Add(n.latency / 4)
			}
			n.flying = append(n.flying, flying{at, 1 - i, b})
		}
	}
}

// run lets time pass until f holds. It fails the test after a long time.
func (n *network) run(what string, limit time.Duration, f func() bool) {
	n.t.Helper()
	for end := n.now.Add(limit); ; {
		n.flush()
		if f() {
			return
		}
		first, which := time.Time{}, -1
		for i, p := range n.flying {
			if which < 0 || p.at.Before(first) {
				first, which = p.at, i
			}
		}
		timer := -1
		for i, e := range n.ends {
			if d := e.Deadline(); !d.IsZero() && (which < 0 && timer < 0 || d.Before(first)) {
				first, timer = d, i
			}
		}
		if which < 0 && timer < 0 || first.After(end) {
			n.t.Fatalf("%s did not come true in %v", what, limit)
		}
		if n.now.Before(first) {
			n.now = first
		}
		if timer >= 0 {
			n.ends[timer].Expire(n.now)
			continue
		}
		p := n.flying[which]
		n.flying = append(n.flying[:which], n.flying[which+1:]...)
		if n.filter != nil {
			if p.data = n.filter(p.to, p.data); p.data == nil {
				continue
			}
		}
		if err := n.ends[p.to].Receive(n.now, p.data); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *network) connect() {
	n.t.Helper()
	n.ends[0].Connect(n.now)
	n.ends[1].Connect(n.now)
	n.run("connected", time.Minute, func() bool { return n.ends[0].Established() && n.ends[1].Established() })
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7) ^ byte(i>>8) ^ seed
	}
	return b
}

func TestConnect(t *testing.T) {
	for _, both := range []bool{false, true} {
		for _, loss := range []float64{0, 0.3} {
			n := newNetwork(t, 50*time.Millisecond, loss)
			n.ends[0].Connect(n.now)
			if both {
				n.ends[1].Connect(n.now)
			}
			n.ends[0].Send(2, 53, []byte("early"))
			begin := n.now
			n.run("the first message", time.Minute, func() bool { return string(n.ends[1].got[2]) == "early" })
			if took := n.now.Sub(begin); loss == 0 && took != 150*time.Millisecond {
				t.Errorf("both %v: %v until the first message, want 1.5 round trips", both, took)
			}
			if n.ends[1].Streams() != 65535 {
				t.Errorf("%d streams", n.ends[1].Streams())
			}
		}
	}
}

// Whatever is lost or overtakes, messages come whole and in order.
func TestDeliver(t *testing.T) {
	for _, c := range []struct{ loss, shuffle float64 }{{0, 0}, {0.02, 0}, {0, 0.2}, {0.1, 0.1}, {0.3, 0}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			n := newNetwork(t, 10*time.Millisecond, c.loss)
			n.shuffle = c.shuffle
			n.connect()
			var want [2]map[uint16][]byte
			for i, e := range n.ends {
				want[i] = make(map[uint16][]byte)
				for k := range 100 {
					id := uint16(k % 7)
					msg := pattern(1+k*k*3%20000, byte(k))
					want[i][id] = append(want[i][id], msg...)
					e.Send(id, 53, msg)
				}
			}
			n.run("all messages", 5*time.Minute, func() bool {
				return n.ends[0].Drained() && n.ends[1].Drained()
			})
			for i := range n.ends {
				for id, w := range want[i] {
					if !bytes.Equal(n.ends[1-i].got[id], w) {
						t.Errorf("stream %d: %d bytes, want %d", id, len(n.ends[1-i].got[id]), len(w))
					}
				}
				if h := n.ends[i].Held(); h != 0 {
					t.Errorf("%d bytes are held", h)
				}
			}
			t.Logf("%v, %d packets, %d lost", n.now.Sub(time.Unix(1e9, 0)), n.packets, n.dropped)
		})
	}
}

// A link with a short queue is used well, though it drops what comes too fast.
func TestCongestion(t *testing.T) {
	n := newNetwork(t, 5*time.Millisecond, 0)
	n.rate, n.queue = 10e6, 100e3
	n.connect()
	const size = 20e6
	sent := 0
	begin := n.now
	n.run("all bytes", time.Minute, func() bool {
		for sent < size && len(n.ends[0].send.active) == 0 {
			n.ends[0].Send(2, 53, make([]byte, 16384))
			sent += 16384
		}
		return sent >= size && n.ends[0].Drained()
	})
	took := n.now.Sub(begin)
	t.Logf("%.1f MB/s of 10, %d packets of %d lost", size/1e6/took.Seconds(), n.dropped, n.packets)
	if took > 3*time.Second {
		t.Errorf("took %v, want about 2s", took)
	}
}

// A stream that nobody reads does not hold up others.
func TestSlowReader(t *testing.T) {
	n := newNetwork(t, time.Millisecond, 0)
	n.connect()
	x, y := n.ends[0], n.ends[1]
	y.unread[2] = true
	fill := func(ids ...uint16) {
		for _, id := range ids {
			if st := x.send.streams[id]; st == nil || len(st.queue) < 4 {
				x.Send(id, 53, make([]byte, 16384))
			}
		}
	}
	n.run("the reader of the other stream", time.Minute, func() bool {
		fill(2, 4)
		return len(y.got[4]) > 8<<20
	})
	if h := y.held[2]; h < Window/4 || h > Window*3/4 {
		t.Errorf("%d bytes are held for the stream that is not read", h)
	}
	// Now it is.
	y.unread[2] = false
	y.Consume(y.held[2])
	n.run("the slow reader", time.Minute, func() bool {
		fill(2, 4)
		return len(y.got[2]) > 4<<20
	})
	t.Logf("%v", n.now.Sub(time.Unix(1e9, 0)))
}

func TestReset(t *testing.T) {
	n := newNetwork(t, 10*time.Millisecond, 0.2)
	n.connect()
	for id := uint16(0); id < 1000; id++ {
		n.ends[0].Send(id, 53, []byte("hello"))
		n.ends[0].Reset(id)
	}
	n.run("all resets", time.Minute, func() bool { return len(n.ends[0].resetDone) == 1000 })
	if len(n.ends[1].peerReset) != 1000 || len(n.ends[0].send.streams) != 0 {
		t.Errorf("%d resets, %d streams", len(n.ends[1].peerReset), len(n.ends[0].send.streams))
	}
	for id := range uint16(1000) {
		if string(n.ends[1].got[id]) != "hello" {
			t.Fatalf("stream %d: got %q", id, n.ends[1].got[id])
		}
	}
	n.ends[0].Send(5, 53, []byte(" again"))
	n.run("a stream that is used again", time.Minute, func() bool { return string(n.ends[1].got[5]) == "hello again" })
}

// What was queued on a stream that the peer uses again is not sent, so that a peer that does
// so all the time, and takes nothing, does not make it pile up.
func TestRenew(t *testing.T) {
	n := newNetwork(t, time.Millisecond, 0)
	n.connect()
	x, y := n.ends[0], n.ends[1]
	for range 100 {
		x.Send(2, 53, []byte("old"))
		x.Reset(2)
		x.Renew(2)
	}
	if q := len(x.send.active); q != 0 {
		t.Errorf("%d streams have messages", q)
	}
	x.Send(2, 53, []byte("new"))
	n.run("the new stream", time.Minute, func() bool { return len(y.got[2]) >= 3 })
	if string(y.got[2]) != "new" {
		t.Errorf("got %q", y.got[2])
	}
}

// A message that is delivered has no more room than it needs, and an idle association none.
func TestRoom(t *testing.T) {
	n := newNetwork(t, time.Millisecond, 0)
	n.connect()
	x, y := n.ends[0], n.ends[1]
	room := 0
	deliver := y.ev.Message
	y.ev.Message = func(stream uint16, ppid uint32, msg []byte) {
		room = cap(msg)
		deliver(stream, ppid, msg)
	}
	for _, size := range []int{10, DataSize + 1, 16384} {
		room = 0
		x.Send(2, 53, make([]byte, size))
		n.run("a message", time.Minute, func() bool { return room > 0 })
		if room > size+size/4+16 { // as the allocator rounds
			t.Errorf("a message of %d bytes has room for %d", size, room)
		}
	}
	n.run("silence", time.Minute, func() bool { return y.receive.message == nil })
}

// A SACK that says the same again and again is dropped, and changes nothing.
func TestOverlap(t *testing.T) {
	n := newNetwork(t, time.Millisecond, 0)
	n.connect()
	x := n.ends[0]
	x.Send(2, 53, make([]byte, 8*DataSize))
	for len(x.Next(n.now, nil)) > 0 {
	}
	sack := func(gaps ...span) error {
		b := appendSack(beginPacket(nil, x.tag), x.send.tsn()-1, Window, gaps)
		endPacket(b)
		return x.Receive(n.now, b)
	}
	first, bytes := x.send.tsn(), x.send.bytes
	every := span{first + 1, first + 7}
	if err := sack(every, every); !errors.Is(err, ErrMalformed) || x.send.bytes != bytes {
		t.Errorf("%v, and %d of %d bytes are under way", err, x.send.bytes, bytes)
	}
	if err := sack(span{first + 1, first + 2}, span{first + 4, first + 7}); err != nil || x.send.bytes >= bytes {
		t.Errorf("blocks apart: %v", err)
	}
}

// TestResets: a peer may have several requests under way, as pion/sctp does.
func TestResets(t *testing.T) {
	n := newNetwork(t, time.Millisecond, 0)
	n.connect()
	a, seq, last := n.ends[1], n.ends[0].reset.seq, n.ends[0].send.nextTSN
	ask := func(i uint32) {
		a.onPeerReset(&resetRequest{seq: seq + i, last: last, streams: []uint16{uint16(i)}})
	}
	ask(0) // waits for what was not sent yet
	ask(1)
	if a.peerReset != nil {
		t.Fatalf("reset before all has come: %v", a.peerReset)
	}
	n.ends[0].Send(7, 53, []byte("x"))
	n.run("it has come", time.Second, func() bool { return a.got[7] != nil })
	ask(1)
	ask(0)
	ask(1)
	if want := []uint16{0, 1}; !slices.Equal(a.peerReset, want) {
		t.Errorf("reset: %v, want %v", a.peerReset, want)
	}
	if len(a.control) != 3 {
		t.Errorf("%d answers to three requests", len(a.control))
	}
}

func TestAbort(t *testing.T) {
	n := newNetwork(t, time.Millisecond, 0)
	n.connect()
	n.ends[0].Abort(0x1006)
	n.run("the end", time.Minute, func() bool { return n.ends[1].ended != nil })
	if e, ok := n.ends[1].ended.(*AbortError); !ok || e.Code != 0x1006 {
		t.Errorf("ended by %v", n.ends[1].ended)
	}
}

// A peer that has gone is noticed, by one that waits and by one that sends.
func TestSilence(t *testing.T) {
	for _, sends := range []bool{false, true} {
		n := newNetwork(t, time.Millisecond, 0)
		n.connect()
		n.run("a while", 2*time.Minute, func() bool { return n.now.Sub(time.Unix(1e9, 0)) > time.Minute })
		if n.ends[0].ended != nil {
			t.Fatalf("an idle association has ended: %v", n.ends[0].ended)
		}
		n.loss = 1
		if sends {
			n.ends[0].Send(2, 53, make([]byte, 100e3))
		}
		begin := n.now
		n.run("the end", time.Minute, func() bool { return n.ends[0].ended != nil })
		if took := n.now.Sub(begin); n.ends[0].ended != ErrSilent || took > silent+time.Second {
			t.Errorf("%v after %v", n.ends[0].ended, took)
		}
	}
}

// A message that is too long is skipped, and what follows is not.
func TestTooLong(t *testing.T) {
	n := newNetwork(t, time.Millisecond, 0)
	n.connect()
	n.ends[0].Send(2, 53, make([]byte, MaxMessage+1))
	n.ends[0].Send(4, 53, make([]byte, MaxMessage))
	n.run("the next message", time.Minute, func() bool { return len(n.ends[1].got[4]) == MaxMessage })
	if len(n.ends[1].got[2]) > 0 || len(n.ends[1].tooLong) != 1 || n.ends[1].Held() != 0 {
		t.Errorf("got %d bytes, %v, %d are held", len(n.ends[1].got[2]), n.ends[1].tooLong, n.ends[1].Held())
	}
}

// crowded is a peer that has room for few new streams and drops chunks of further ones,
// without an acknowledgement, as pion/sctp does. It takes one stream after the
// other, and waits for the first message of each.
type crowded struct {
	known  map[uint16]bool
	opened map[uint16]bool // their first message has come
	queue  []uint16        // streams that were not taken
	chunks int
	turn   int       // in chunks, of who takes streams
	last   time.Time // when a packet came
}

// filter returns a packet without the chunks that are dropped; nil: none is left.
func (p *crowded) filter(t testing.TB, now time.Time, packet []byte) []byte {
	for p.last.Before(now) && p.next() {
		p.last = p.last.Add(time.Millisecond)
	}
	p.last = now
	tag, chunks, err := openPacket(packet)
	if err != nil {
		t.Fatal(err)
	}
	rest := beginPacket(nil, tag)
	for len(chunks) > 0 {
		typ, flags, value, after, err := nextChunk(chunks)
		if err != nil {
			t.Fatal(err)
		}
		chunks = after
		if typ == chunkData && !p.take(value) {
			continue
		}
		rest = appendChunk(rest, typ, flags, value)
	}
	if len(rest) == headerSize {
		return nil
	}
	endPacket(rest)
	return rest
}

// next is a turn of who takes streams. It may come between two chunks of a packet.
func (p *crowded) next() bool {
	if len(p.queue) == 0 || !p.opened[p.queue[0]] {
		return false
	}
	p.queue = p.queue[1:]
	return true
}

func (p *crowded) take(data []byte) bool {
	if p.chunks++; p.chunks%p.turn == 0 {
		p.next()
	}
	v, _ := parseData(0, data)
	if !p.known[v.stream] {
		if len(p.queue) == 16 {
			return false
		}
		p.known[v.stream] = true
		p.queue = append(p.queue, v.stream)
	}
	p.opened[v.stream] = p.opened[v.stream] || v.ssn == 0
	return true
}

// TestCrowded: a peer that has lost what opens a stream, and taken what follows, gets
// the former before more of what it drops.
func TestCrowded(t *testing.T) {
	for _, turn := range []int{2, 10, 20, 30, 36, 40, 44, 50, 56, 60, 70, 80, 90, 100, 120, 150} {
		t.Run(fmt.Sprint(turn), func(t *testing.T) { testCrowded(t, turn) })
	}
}

func testCrowded(t *testing.T, turn int) {
	n := newNetwork(t, 100*time.Microsecond, 0)
	n.connect()
	n.ends[0].Send(1000, 53, pattern(MaxMessage, 0)) // so that much may be under way
	n.run("one has come", 10*time.Second, func() bool { return len(n.ends[1].got[1000]) == MaxMessage })
	p := &crowded{known: make(map[uint16]bool), opened: make(map[uint16]bool), turn: turn}
	n.filter = func(to int, packet []byte) []byte {
		if to == 0 {
			return packet
		}
		return p.filter(t, n.now, packet)
	}
	const streams = 100
	for id := range uint16(streams) {
		n.ends[0].Send(id, 50, []byte("open"))
		n.ends[0].Send(id, 53, pattern(1070, byte(id)))
		n.flush()
	}
	n.run("all have come", 10*time.Second, func() bool {
		for id := range uint16(streams) {
			if len(n.ends[1].got[id]) != 4+1070 {
				return false
			}
		}
		return true
	})
}

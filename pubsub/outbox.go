package pubsub

import (
	"sync"
	"time"

	"github.com/plexus-p2p/plexus"
)

// writeTimeout is how long a peer may take nothing before it is cut off.
const writeTimeout = 30 * time.Second

// An outbox writes what waits for one peer. Its goroutine, run, exists only while
// something does.
type outbox struct {
	ps   *PubSub
	link *link

	mu      sync.Mutex
	stream  *plexus.Stream // nil: it is to be opened
	since   time.Time      // when it was
	failed  int            // attempts to open it
	q       Queue
	running bool
	paused  bool // run waits for a time before it opens the stream again
	closed  bool
	slow    bool          // it made no room in time; until its own queue is half empty, nobody waits for it
	room    chan struct{} // closed when there may be room; made by those who wait
	writing bool          // own messages
	idle    chan struct{} // closed when own messages are written; made by those who wait
}

// A pushed tells what became of a message for a peer.
type pushed uint8

const (
	queued pushed = iota
	full
	gone
)

// push queues m. It never blocks.
func (o *outbox) push(m *Message, own bool) pushed {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pushLocked(m, own)
}

func (o *outbox) pushLocked(m *Message, own bool) pushed {
	if o.closed {
		return gone
	}
	if !o.q.Push(m, own) {
		return full
	}
	o.kick()
	return queued
}

// wait queues m as soon as there is room, until the deadline or stop.
func (o *outbox) wait(m *Message, stop, deadline <-chan struct{}) pushed {
	for {
		o.mu.Lock()
		if r := o.pushLocked(m, true); r != full || o.slow {
			o.mu.Unlock()
			return r
		}
		if o.room == nil {
			o.room = make(chan struct{})
		}
		room := o.room
		o.mu.Unlock()
		select {
		case <-room:
		case <-stop:
			return full
		case <-deadline:
			o.mu.Lock()
			o.slow = true
			o.mu.Unlock()
			return full
		}
	}
}

// cancel takes a message out that the peer turned out to have.
func (o *outbox) cancel(id []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.q.Cancel(id) {
		o.madeRoom()
		o.ps.count.cancelled.Add(1)
	}
}

// announce queues a change of a subscription. Only the last one of a topic counts.
func (o *outbox) announce(s SubOpts) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.q.Announce(s)
	o.kick()
}

// control queues control messages.
func (o *outbox) control(c *Control) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if full, ok := o.q.Control(c); !ok {
		o.ps.count.drop(full, 1)
		if full == ControlQueueFull && o.stream != nil {
			o.stream.Reset(plexus.CodeLimit) // run or watch will see to the rest
		}
		return
	}
	o.kick()
}

// parts queues a partial message.
func (o *outbox) parts(p *Partial) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if !o.q.Partial(p) {
		o.ps.count.drop(GossipQueueFull, 1)
		return
	}
	o.kick()
}

// start lets run open the stream, also if nothing waits.
func (o *outbox) start() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kick()
}

// kick starts run if it does not run.
func (o *outbox) kick() {
	if o.running || o.paused || o.closed {
		return
	}
	o.running = true
	o.ps.wg.Go(o.run) // ends when nothing waits, or the stream does not open
}

// madeRoom wakes those who wait for room.
func (o *outbox) madeRoom() {
	if o.q.own.bytes <= o.q.Own/2 {
		o.slow = false
	}
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// run writes until nothing waits.
func (o *outbox) run() {
	bp := o.ps.buffers.Get().(*[]byte)
	defer o.ps.buffers.Put(bp)
	for {
		s := o.opened()
		if s == nil {
			return
		}
		b, large, n := o.collect((*bp)[:0])
		if len(b) == 0 && large == nil {
			return
		}
		s.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := s.Write(b)
		if err == nil && large != nil {
			_, err = s.Write(large)
		}
		o.ps.count.out.Add(uint64(len(b) + len(large)))
		if cap(b) <= 2*maxBatch {
			*bp = b[:0]
		}
		if err != nil {
			o.ps.log.Debug("peer takes nothing", "peer", o.link.id, "err", err)
			o.ps.count.drop(PeerGone, n) // some may have arrived
			o.lost(s)
		}
	}
}

// opened returns the stream. If there is none it opens one and says hello; if that
// does not succeed, or is not to be tried yet, it ends run and returns nil.
func (o *outbox) opened() *plexus.Stream {
	o.mu.Lock()
	s := o.stream
	if s == nil && (o.paused || o.closed) {
		o.running = false
		o.mu.Unlock()
		return nil
	}
	o.mu.Unlock()
	if s != nil {
		return s
	}
	s, hello, hopeless := o.ps.open(o.link)
	if s != nil {
		s.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := s.Write(hello); err != nil {
			s.Reset(plexus.CodeNone)
			s = nil
		}
	}
	o.mu.Lock()
	if o.closed {
		o.running = false
		o.mu.Unlock()
		if s != nil {
			s.Reset(plexus.CodeNone)
		}
		return nil
	}
	if s != nil {
		o.stream = s
		o.since = time.Now()
		o.ps.wg.Go(func() { o.watch(s) }) // ends with the answer
		o.mu.Unlock()
		return s
	}
	o.running = false
	down := hopeless || !o.pause()
	o.mu.Unlock()
	if down {
		o.ps.down(o.link)
	}
	return nil
}

// retries are how long to wait between attempts to open the stream to a peer that
// is connected; a stream that lasted for lasting begins anew.
var retries = []time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second}

const lasting = 30 * time.Second

// pause lets some time pass before the stream is opened again. It returns false if
// that has been tried often enough.
func (o *outbox) pause() bool {
	if o.failed == len(retries) {
		return false
	}
	o.paused = true
	time.AfterFunc(retries[o.failed], func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.paused = false
		o.kick()
	})
	o.failed++
	return true
}

// watch waits for the peer's answer to the protocol. From then on nobody reads the stream,
// to which the peer writes nothing: that it ends its own direction is no end.
func (o *outbox) watch(s *plexus.Stream) {
	if s.Handshake() != nil {
		o.lost(s)
		return
	}
	s.AfterReset(func() { o.lost(s) }) // ends at once
}

// lost gives up a stream.
func (o *outbox) lost(s *plexus.Stream) {
	s.Reset(plexus.CodeNone)
	o.mu.Lock()
	if o.stream != s || o.closed {
		o.mu.Unlock()
		return
	}
	o.stream = nil
	if time.Since(o.since) > lasting {
		o.failed = 0
	}
	down := !o.pause()
	o.mu.Unlock()
	if down {
		o.ps.down(o.link)
	}
}

// collect returns what is to be written next, with b for its memory, and how many
// messages that is. It ends run if it is nothing.
func (o *outbox) collect(b []byte) (batch, large []byte, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stream == nil && !o.closed {
		return nil, nil, 0 // lost this moment; run looks again
	}
	own := o.q.own.bytes
	batch, large, n = o.q.Next(b)
	if o.writing = o.q.own.bytes < own; o.writing {
		o.madeRoom()
	} else {
		o.rest() // what was collected before is written
	}
	o.ps.count.sent.Add(uint64(n))
	if len(batch) == 0 && large == nil {
		o.running = false
	}
	return batch, large, n
}

// close drops what waits, and counts it.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	o.ps.count.drop(PeerGone, o.q.Len())
	o.q.Clear()
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
	o.rest()
	if o.stream != nil {
		o.stream.Reset(plexus.CodeNone)
	}
}

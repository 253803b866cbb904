package pubsub

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
)

const (
	// readBuffer is what a reader holds of its stream. A message that fits in is
	// looked at there, and copied only if it is new.
	readBuffer = 4 << 10

	// idleAfter is how long a reader keeps that while nothing comes.
	idleAfter = 5 * time.Second

	// trust is how much of a long RPC is allocated before any of it has come, and
	// longTimeout how long an RPC may take that has begun.
	trust       = 64 << 10
	longTimeout = time.Minute
)

// A reader reads what one peer sends. It is a goroutine, the stream's handler, and
// checks messages itself: while it does, nothing more is read, and the stream's flow
// control slows the peer. Where more has come already, other goroutines help, as
// many as there are processors.
type reader struct {
	ps   *PubSub
	link *link
	src  source
	br   *bufio.Reader // of src; nil while nothing has come for a while
	met  bool          // its first RPC has come
	more bool          // behind the RPC at hand, more has come
	adm  Admission     // of the RPC at hand
	ask  bool          // the router is yet to be asked for it
	rpc  RPC
	in   []incoming
	id   []byte // scratch of IDs
}

// incoming is a message that has just come.
type incoming struct {
	t     *Topic
	m     Message // its parts are parts of the RPC
	from  []byte
	id    []byte
	own   *Message // m to be kept; made when it turns out to be new
	plain bool     // m's encoding is canonical
	raw   []byte
	err   error // it does not meet the policy
}

// A source is a stream of which a byte may have been read already.
type source struct {
	*plexus.Stream
	first [1]byte
	has   bool
}

func (s *source) Read(b []byte) (int, error) {
	if s.has && len(b) > 0 {
		s.has = false
		return copy(b, s.first[:]), nil
	}
	return s.Stream.Read(b)
}

// serve reads a stream that a peer opened.
func (ps *PubSub) serve(_ context.Context, s *plexus.Stream) error {
	l := ps.attach(s)
	if l == nil {
		return ErrClosed
	}
	defer ps.detach(l, s)
	r := reader{ps: ps, link: l, src: source{Stream: s}}
	defer r.rest()
	for {
		if err := r.next(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// wake waits for a byte, and gets a buffer for what follows.
func (r *reader) wake() error {
	if _, err := io.ReadFull(r.src.Stream, r.src.first[:]); err != nil {
		return err
	}
	r.src.has = true
	r.br = r.ps.readers.Get().(*bufio.Reader)
	r.br.Reset(&r.src)
	return nil
}

// rest gives back what an idle reader does not need.
func (r *reader) rest() {
	if r.br != nil {
		r.br.Reset(nil)
		r.ps.readers.Put(r.br)
		r.br, r.rpc, r.in, r.id = nil, RPC{}, nil, nil
	}
}

// next reads and handles an RPC.
func (r *reader) next() error {
	if r.br == nil {
		if err := r.wake(); err != nil {
			return err
		}
	}
	if r.br.Buffered() == 0 {
		r.src.SetReadDeadline(time.Now().Add(idleAfter))
	}
	n, head, err := r.length()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.src.SetReadDeadline(time.Time{})
		if r.br.Buffered() == 0 {
			r.rest()
		}
		return nil
	}
	if err != nil {
		return err
	}
	r.ps.count.in.Add(uint64(n + head))
	if n+head <= r.br.Size() {
		if r.br.Buffered() < n+head {
			r.src.SetReadDeadline(time.Now().Add(longTimeout))
		}
		b, err := r.br.Peek(n + head)
		if err != nil {
			return early(err)
		}
		r.more = r.br.Buffered() > n+head
		err = r.handle(b[head:], nil)
		r.br.Discard(n + head)
		return err
	}
	b, err := r.long(n + head)
	if err != nil {
		return early(err)
	}
	r.more = r.br.Buffered() > 0
	return r.handle(b[head:], b)
}

func early(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// length returns the length of the next RPC, and in how many bytes it is written.
func (r *reader) length() (n, head int, err error) {
	for i := 1; i <= binary.MaxVarintLen32; i++ {
		b, err := r.br.Peek(i)
		if err != nil {
			if i > 1 {
				err = early(err)
			}
			return 0, 0, err
		}
		if b[i-1] >= 0x80 {
			continue
		}
		v, _ := binary.Uvarint(b)
		if v > uint64(r.ps.cfg.MaxMessage) {
			return 0, 0, &pb.TooLargeError{Size: v, Max: r.ps.cfg.MaxMessage}
		}
		return int(v), i, nil
	}
	return 0, 0, malformed(errors.New("length of an RPC"))
}

// long reads n bytes that do not fit into the buffer. Memory grows as they come.
func (r *reader) long(n int) ([]byte, error) {
	r.src.SetReadDeadline(time.Now().Add(longTimeout))
	defer r.src.SetReadDeadline(time.Time{})
	b := make([]byte, min(n, trust))
	at := 0
	for {
		m, err := io.ReadFull(r.br, b[at:])
		if at += m; err != nil {
			return nil, err
		}
		if at == n {
			return b, nil
		}
		grown := make([]byte, min(n, 4*len(b)))
		copy(grown, b)
		b = grown
	}
}

// handle handles an RPC. Where frame is not nil it is the RPC with its length before
// it, in memory that is the message's to keep.
func (r *reader) handle(b, frame []byte) error {
	rpc := &r.rpc
	*rpc = RPC{Messages: rpc.Messages[:0]}
	if err := rpc.Parse(b); err != nil {
		return err
	}
	ps := r.ps
	r.ask = true
	if len(rpc.Subs) > 0 || len(rpc.Messages) == 0 {
		// Messages alone, which are most of what comes, need no lock here.
		ps.mu.Lock()
		if ps.closed {
			ps.mu.Unlock()
			return ErrClosed
		}
		r.adm, r.ask = ps.core.Open(time.Now(), r.link.peer, rpc, &ps.actions), false
		ps.perform(nil)
		if len(rpc.Subs) > 0 {
			ps.changed()
		}
		ps.mu.Unlock()
	}
	if len(rpc.Messages) > 0 {
		single := len(rpc.Messages) == 1 && fieldSize(len(rpc.Messages[0])) == len(b)
		if !single {
			frame = nil
		}
		if err := r.messages(frame); err != nil {
			return err
		}
	}
	if !r.met || !rpc.Control.IsZero() || rpc.Partial != nil || rpc.Test {
		ps.mu.Lock()
		defer ps.mu.Unlock()
		if ps.closed {
			return ErrClosed
		}
		now := time.Now()
		if r.admission(now) == AdmitNone {
			return nil
		}
		r.met = true
		r.cancelUnwanted()
		ps.core.Close(now, r.link.peer, rpc, &ps.actions)
		ps.perform(nil)
	}
	return nil
}

// admission says how much of the RPC is looked at. The caller holds the lock.
func (r *reader) admission(now time.Time) Admission {
	if r.ask {
		r.adm, r.ask = r.ps.core.router.Admit(now, r.link.peer), false
	}
	return r.adm
}

// cancelUnwanted takes what the peer does not want out of its queue.
func (r *reader) cancelUnwanted() {
	for i, id := range r.rpc.Control.IDontWant {
		if i == maxCancel {
			break
		}
		r.link.out.cancel(id)
	}
}

// maxCancel is how many IDs of one RPC are looked up in the queue.
const maxCancel = 1024

// messages handles the messages of an RPC.
func (r *reader) messages(frame []byte) error {
	ps := r.ps
	topics := *ps.topics.Load()
	r.in, r.id = r.in[:0], r.id[:0]
	ps.count.received.Add(uint64(len(r.rpc.Messages)))
	for _, raw := range r.rpc.Messages {
		in := incoming{raw: raw}
		from, topic, plain, err := in.m.parse(raw)
		if err != nil {
			return err
		}
		in.t = topics[string(topic)]
		if in.t == nil {
			ps.count.drop(NotJoined, 1)
			continue
		}
		in.from, in.plain = from, plain
		in.m.Topic = in.t.name
		in.err = in.t.policy.check(&in.m, len(from))
		switch {
		case in.err != nil:
			in.keep(ps, frame)
		case in.t.id == nil:
			at := len(r.id)
			r.id = appendDefaultID(r.id, from, in.m.Seqno)
			in.id = r.id[at:]
		default:
			in.keep(ps, frame)
			in.own.ID = in.t.id(in.own)
			in.id = []byte(in.own.ID)
		}
		r.in = append(r.in, in)
	}
	if len(r.in) == 0 {
		return nil
	}
	if err := r.duplicates(); err != nil {
		return err
	}
	for i := range r.in {
		in := &r.in[i]
		if in.t == nil {
			continue
		}
		in.keep(ps, frame)
		if in.own.ID == "" && in.err == nil {
			in.own.ID = MessageID(in.id)
		}
		if !r.receive(in) {
			continue
		}
		if r.more || i+1 < len(r.in) {
			select {
			case ps.helpers <- struct{}{}:
				t, m := in.t, in.own
				ps.begin(func() { // ends with the check; helpers bounds how many there are
					defer func() { <-ps.helpers }()
					ps.verify(t, m)
				})
				continue
			default:
			}
		}
		ps.verify(in.t, in.own)
	}
	clear(r.in)
	return nil
}

// keep makes the message that is kept of an incoming one.
func (in *incoming) keep(ps *PubSub, frame []byte) {
	if in.own != nil {
		return
	}
	m := in.m
	m.From = ps.authors.intern(in.from)
	m.keep(in.raw, frame, in.plain)
	in.own = &m
}

// duplicates leaves only what may be new in r.in, and whom the router listens to.
func (r *reader) duplicates() error {
	ps := r.ps
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed {
		return ErrClosed
	}
	now := time.Now()
	adm := r.admission(now)
	for i := range r.in {
		in := &r.in[i]
		if adm != AdmitAll {
			ps.dropped(NotAdmitted, r.link.id, MessageID(in.id))
			in.t = nil
			continue
		}
		if in.err != nil {
			continue
		}
		r.link.out.cancel(in.id) // whoever sends it, has it
		if ps.core.duplicate(now, r.link.peer, in.id, in.raw, &ps.actions) {
			ps.count.duplicates.Add(1)
			in.t = nil
			continue
		}
		if peer.ID(in.from) == ps.h.ID() && in.t.policy == StrictSign {
			// "if the router receives a message that it published itself, it will not
			// forward it further."
			ps.dropped(OwnMessage, r.link.id, MessageID(in.id))
			in.t = nil
		}
	}
	ps.perform(nil)
	return nil
}

// receive tells the core of a message; it returns true if it is to be verified.
func (r *reader) receive(in *incoming) bool {
	ps := r.ps
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed {
		return false
	}
	m := in.own
	if in.err != nil {
		m.ReceivedFrom = r.link.id
		ps.log.Debug("message against the signing policy", "peer", r.link.id, "err", in.err)
		ps.decideLocked(time.Now(), in.t, m, Forged)
		return false
	}
	isNew := ps.core.Receive(time.Now(), r.link.peer, m, &ps.actions)
	if !isNew {
		ps.count.duplicates.Add(1)
	}
	ps.perform(nil)
	return isNew
}

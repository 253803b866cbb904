// Package rtc is what the kinds of WebRTC share once there is a path for packets: DTLS,
// SCTP in it, and data channels in that, which are the streams.
//
//	dtls.go     the handshake, which is pion's, and records, which are not
//	cert.go     the certificate of a host
//	session.go  the association and its channels; transport/internal/sctp has SCTP
//	stream.go   a data channel is a net.Conn
//	wire.go     the codec of what channels carry
//	inbox.go    packets that wait to be read
//
// Spec: https://github.com/libp2p/specs/blob/master/webrtc/README.md
package rtc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/certhash"
	"github.com/plexus-p2p/plexus/transport/internal/sctp"
)

const (
	// maxStreams is how many streams a peer may have open. Further ones are reset.
	maxStreams = 1024

	// finWait is how long a stream that we are done with waits for the peer to say
	// that it has received the end. Some peers never do.
	finWait = 10 * time.Second

	// closeWait is for how long we leave it to the peer to close a channel on which
	// all is said. js-libp2p looks at messages after the close that came behind them.
	closeWait = time.Second

	// openTime is how long a server waits with its first message when the association
	// is there.
	openTime = 4 * time.Millisecond

	batch = 16 // packets that are encrypted at a time, outside of the lock, or answered at a time
)

// initLabel is that of a channel that js-libp2p opens and closes while it connects.
const initLabel = "init"

// Session is a connection: DTLS, SCTP in it, and data channels in that.
//
// The goroutine run reads. Whoever has something to send writes, and what others have
// meanwhile: see unlock.
type Session struct {
	conn          *Conn
	client        bool // the DTLS client, which has the even channels
	local, remote net.Addr

	id  peer.ID     // set before the session is handed out
	key peer.PubKey //

	ready  chan struct{} // closed when the peer has an association with us
	over   chan struct{} // closed when the session has ended
	gone   chan struct{} // closed when run has ended
	poke   chan struct{} // told when there is something to accept
	quiet  chan struct{} // told while we close, when all has arrived
	out    []byte        // owned by the writer
	plain  []byte        //
	packet [batch + 1]int

	mu      sync.Mutex
	assoc   *sctp.Association
	writing bool // somebody writes
	timer   *time.Timer
	armed   time.Time // when it fires; zero: it is not set
	streams map[uint16]*stream
	ended   map[uint16]ending // channels that are being closed
	open    int               // streams that are not over
	inbound int               // of those, the peer's
	nextID  int
	room    chan struct{} // closed when there may be an ID again
	fins    int           // FINs that were sent and not acknowledged
	linger  []*stream     // that wait for FIN_ACK, in the order of their deadlines
	unasked []closing     // channels that wait for the peer to close them, in that order too
	backlog []*stream     // to be accepted
	closing *muxer.SessionError
	end     *muxer.SessionError
}

// ending is how far the closing of a channel has come.
type ending uint8

const (
	asked     ending = 1 << iota // our direction is being ended
	weEnded                      // the peer knows that it has
	peerEnded                    // and we that its has
)

// closing is a channel that we close at a time.
type closing struct {
	id uint16
	at time.Time
}

var _ transport.Session = (*Session)(nil)

// NewSession makes a session of a connection. It begins with Authenticate or Start.
func NewSession(conn *Conn, client bool, local, remote net.Addr) *Session {
	s := &Session{
		conn: conn, client: client, local: local, remote: remote,
		ready: make(chan struct{}), over: make(chan struct{}), gone: make(chan struct{}),
		poke: make(chan struct{}, 1), quiet: make(chan struct{}, 1),
		streams: make(map[uint16]*stream), ended: make(map[uint16]ending),
		nextID: 1,
	}
	if client {
		s.nextID = 0
	}
	s.assoc = sctp.New(time.Now(), sctp.Events{
		Established: func() { close(s.ready) },
		Message:     s.onMessage,
		TooLong:     func(id uint16) { s.violation(s.streams[id]) },
		Sent:        s.onSent,
		PeerReset:   s.onPeerReset,
		ResetDone:   s.onResetDone,
		Ended:       s.onEnded,
	})
	return s
}

// Start begins to send and to receive, with a peer that has proved this key already.
func (s *Session) Start(key peer.PubKey) {
	s.id, s.key = key.ID(), key
	s.start()
}

// Authenticate begins to send and to receive, and proves the identities on channel 0. It
// ends when ctx does. Somebody else than want is a security.MismatchError. After an
// error the caller drops the session.
//
// "the Noise handshake […] prologue: libp2p-webrtc-noise:<FINGERPRINTS>", A's and B's.
// https://github.com/libp2p/specs/blob/master/webrtc/webrtc-direct.md#connection-security
func (s *Session) Authenticate(ctx context.Context, key peer.PrivKey, want peer.ID) error {
	client, server := certhash.Of(s.conn.own), certhash.Of(s.conn.peer)
	if !s.client {
		client, server = server, client
	}
	prologue := append([]byte("libp2p-webrtc-noise:"), client...)
	p := &noise.Protocol{Prologue: append(prologue, server...), Reverse: true} // the server begins
	st := s.open0()
	s.start()
	if !s.client {
		if err := s.pause(ctx); err != nil {
			return err
		}
	}
	sc, err := p.Secure(ctx, st, security.Handshake{Key: key, Client: s.client, Want: want})
	if err != nil {
		return err
	}
	s.id, s.key = sc.Peer, sc.Key
	s.mu.Lock()
	st.finish()
	s.unlock()
	return nil
}

// open0 makes channel 0, which is there by agreement.
func (s *Session) open0() *stream {
	if s.client {
		s.nextID = 2
	}
	st := s.add(0)
	st.opened = true
	return st
}

func (s *Session) start() {
	s.mu.Lock()
	s.timer = time.AfterFunc(math.MaxInt64, s.expire)
	s.assoc.Connect(time.Now())
	s.unlock()
	go s.run() // ends with the path
}

// pause waits until the peer has had the time to open channel 0.
//
// Nothing tells when it has: a channel that is there by agreement is not announced. But
// webrtc-rs, which rust-libp2p has, does not open one on which a message has come.
func (s *Session) pause(ctx context.Context) error {
	select {
	case <-s.ready:
	case <-s.over:
		return nil // the handshake will see why
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	time.Sleep(openTime)
	return nil
}

func (s *Session) Peer() (peer.ID, peer.PubKey) { return s.id, s.key }
func (s *Session) LocalAddr() net.Addr          { return s.local }
func (s *Session) RemoteAddr() net.Addr         { return s.remote }

// run reads until the session ends. What waits already is answered at once, up to batch
// packets of it. That is later than
//
// "an acknowledgement SHOULD be generated for at least every second packet"
// https://www.rfc-editor.org/rfc/rfc9260#section-6.2
//
// but only where we are slower than the peer, who would be kept busy with answers.
func (s *Session) run() {
	defer close(s.gone)
	buf := make([]byte, MaxDatagram)
	for n := 1; ; n++ {
		err := s.conn.receive(buf, s.input)
		if err == nil && n%batch != 0 && s.conn.waiting() {
			continue
		}
		s.mu.Lock()
		switch err {
		case nil:
		case errAlert:
			s.finish(&muxer.SessionError{Remote: true})
		default:
			s.finish(&muxer.SessionError{Remote: true, Err: err})
		}
		s.unlock()
		if err != nil {
			return
		}
	}
}

// input takes a packet of the association. The answer is left to run.
func (s *Session) input(b []byte) {
	s.mu.Lock()
	s.assoc.Receive(time.Now(), b) // what is malformed is dropped
	s.mu.Unlock()
}

// expire is called by the timer.
func (s *Session) expire() {
	s.mu.Lock()
	s.armed = time.Time{}
	now := time.Now()
	s.assoc.Expire(now)
	for len(s.linger) > 0 && !now.Before(s.linger[0].lingers) {
		st := s.linger[0]
		s.linger = s.linger[1:]
		st.giveUp()
	}
	for len(s.unasked) > 0 && !now.Before(s.unasked[0].at) {
		s.ask(s.unasked[0].id)
		s.unasked = s.unasked[1:]
	}
	s.unlock()
}

// unlock sends what there is to send, and unlocks s.mu. If somebody else is sending,
// that one sends it.
func (s *Session) unlock() {
	for !s.writing {
		n := 0
		s.plain = s.plain[:0]
		for n < batch {
			s.packet[n] = len(s.plain)
			s.plain = s.assoc.Next(time.Now(), s.plain)
			if len(s.plain) == s.packet[n] {
				break
			}
			n++
		}
		if n == 0 {
			break
		}
		s.packet[n] = len(s.plain)
		s.writing = true
		s.mu.Unlock()
		s.out = s.out[:0]
		for i := range n {
			s.out = s.conn.seal(s.out, recordData, s.plain[s.packet[i]:s.packet[i+1]])
			s.packet[i] = len(s.out) // where the record ends
		}
		s.conn.send(s.out, s.packet[:n])
		s.mu.Lock()
		s.writing = false
	}
	if s.end != nil && !s.writing {
		s.writing = true // for good
		s.mu.Unlock()
		s.out = s.conn.seal(s.out[:0], recordAlert, []byte{1, 0}) // close_notify
		s.conn.path.Write(s.out)
		s.conn.path.Close()
		return
	}
	s.arm()
	if s.closing != nil && s.assoc.Drained() && s.fins == 0 {
		select {
		case s.quiet <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
}

// arm sets the timer. It may fire too early, never too late.
func (s *Session) arm() {
	if s.end != nil {
		s.timer.Stop()
		return
	}
	d := s.assoc.Deadline()
	if len(s.linger) > 0 && (d.IsZero() || s.linger[0].lingers.Before(d)) {
		d = s.linger[0].lingers
	}
	if len(s.unasked) > 0 && (d.IsZero() || s.unasked[0].at.Before(d)) {
		d = s.unasked[0].at
	}
	if d.IsZero() || !s.armed.IsZero() && !d.Before(s.armed) {
		return
	}
	s.armed = d
	s.timer.Reset(time.Until(d))
}

// onEnded is told by the association.
func (s *Session) onEnded(err error) {
	end := &muxer.SessionError{Remote: true, Err: err}
	var abort *sctp.AbortError
	switch {
	case errors.As(err, &abort):
		end = &muxer.SessionError{Remote: true, Code: muxer.Code(abort.Code)}
	case errors.Is(err, sctp.ErrProtocol):
		end = &muxer.SessionError{Err: fmt.Errorf("%w: %w", muxer.ErrProtocol, err)}
	}
	s.finish(end)
}

// finish ends the session, with s.mu held.
func (s *Session) finish(end *muxer.SessionError) {
	if s.end != nil {
		return
	}
	if s.closing != nil {
		end = s.closing
	}
	s.end = end
	close(s.over)
	s.timer.Stop()
	for _, st := range s.streams {
		st.wakeLocked()
	}
	s.freed()
	s.assoc.Abort(uint32(end.Code)) // unlock sends it, and hangs up
}

// Close implements muxer.Session. It waits until all has arrived, and the peer has said
// so of the ends of streams, which some do when they have read them.
func (s *Session) Close(ctx context.Context, code muxer.Code) error {
	s.mu.Lock()
	if s.end != nil || s.closing != nil {
		s.unlock()
		return nil
	}
	s.closing = &muxer.SessionError{Code: code}
	s.unlock() // tells quiet, if it is
	var err error
	select {
	case <-ctx.Done():
		err = context.Cause(ctx)
	default:
		select {
		case <-s.quiet:
		case <-s.over:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	s.mu.Lock()
	s.finish(s.closing)
	s.unlock()
	<-s.gone
	return err
}

// Drop closes the session at once, whatever has not arrived.
func (s *Session) Drop() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Close(ctx, 0)
}

// Serve implements muxer.Session.
func (s *Session) Serve(accept func(muxer.Stream)) error {
	for {
		s.mu.Lock()
		list := s.backlog
		s.backlog = nil
		end := s.end
		s.mu.Unlock()
		for _, st := range list {
			accept(st)
		}
		if end != nil {
			return end
		}
		select {
		case <-s.poke:
		case <-s.over:
		}
	}
}

// Stats implements muxer.Session.
func (s *Session) Stats() muxer.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return muxer.Stats{Streams: s.open, Received: s.assoc.Held(), RTT: s.assoc.RTT()}
}

// Open implements muxer.Session. It waits while all channels that the peer takes are in use.
func (s *Session) Open(ctx context.Context) (muxer.Stream, error) {
	s.mu.Lock()
	for {
		if err := s.errLocked(); err != nil {
			s.mu.Unlock()
			return nil, err
		}
		if id, ok := s.freeID(); ok {
			st := s.add(id)
			s.mu.Unlock()
			return st, nil
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		s.mu.Lock()
	}
}

func (s *Session) errLocked() error {
	switch {
	case s.end != nil:
		return s.end
	case s.closing != nil:
		return s.closing
	}
	return nil
}

// freeID finds a channel that is not in use.
//
// "the side acting as the DTLS client MUST use even stream identifiers"
// https://www.rfc-editor.org/rfc/rfc8832#section-6
func (s *Session) freeID() (uint16, bool) {
	limit := min(s.assoc.Streams(), 65535) // "65535 is reserved"
	first := 1
	if s.client {
		first = 2
	}
	for range limit/2 + 1 {
		if s.nextID >= limit {
			s.nextID = first
		}
		id := uint16(s.nextID)
		s.nextID += 2
		if int(id) >= limit {
			return 0, false
		}
		if _, busy := s.streams[id]; busy {
			continue
		}
		if _, busy := s.ended[id]; busy {
			continue
		}
		return id, true
	}
	return 0, false
}

func (s *Session) add(id uint16) *stream {
	st := &stream{s: s, id: id}
	s.streams[id] = st
	s.open++
	return st
}

// theirs tells that a channel is one that the peer opens.
func (s *Session) theirs(id uint16) bool { return (id%2 == 0) != s.client }

// What the association tells, with s.mu held.

func (s *Session) onMessage(id uint16, ppid uint32, msg []byte) {
	st := s.streams[id]
	if ppid == ppidControl {
		s.assoc.Consume(len(msg))
		if st == nil {
			s.accept(id, msg)
		}
		return
	}
	if st == nil || ppid == ppidStringEmpty || ppid == ppidBinaryEmpty {
		s.assoc.Consume(len(msg))
		return // of a channel that was closed, or never opened
	}
	st.onMessage(msg)
}

// accept takes a channel that the peer opens.
func (s *Session) accept(id uint16, msg []byte) {
	if !s.theirs(id) { // 0 is free again after the handshake, and some use it
		return
	}
	switch e, busy := s.ended[id]; {
	case busy && e&peerEnded == 0:
		return
	case busy: // it uses the channel again, and the answer to our reset was lost
		s.assoc.Renew(id)
		delete(s.ended, id)
	}
	label, err := parseOpen(msg)
	if err != nil {
		return
	}
	s.assoc.Send(id, ppidControl, ackMessage())
	st := s.add(id)
	st.opened, st.inbound = true, true
	s.inbound++
	switch {
	case label == initLabel: // is closed by the peer, as it has no use
	case s.closing != nil:
		st.resetLocked(muxer.StreamShutdown)
	case s.inbound > maxStreams || len(s.backlog) == maxStreams: // of which some may have ended
		st.resetLocked(muxer.StreamResourceLimitExceeded)
	default:
		s.backlog = append(s.backlog, st)
		select {
		case s.poke <- struct{}{}:
		default:
		}
	}
}

func (s *Session) onSent(id uint16, n int) {
	if st := s.streams[id]; st != nil {
		st.onSent(n)
	}
}

// onPeerReset: "closing a data channel […] the peer […] resets its outgoing stream, too".
// https://www.rfc-editor.org/rfc/rfc8831#section-6.7
func (s *Session) onPeerReset(id uint16) {
	if st := s.streams[id]; st != nil {
		st.onPeerReset()
	}
	s.progress(id, peerEnded)
}

func (s *Session) onResetDone(id uint16) { s.progress(id, weEnded) }

// closeChannel closes a channel on which nothing more will be said.
func (s *Session) closeChannel(id uint16, peerHas bool) {
	delete(s.streams, id)
	if s.ended[id] = 0; peerHas {
		s.ended[id] = peerEnded
		s.ask(id)
		return
	}
	s.unasked = append(s.unasked, closing{id, time.Now().Add(closeWait)})
}

// ask ends our direction of a channel.
func (s *Session) ask(id uint16) {
	if e, ok := s.ended[id]; ok && e&asked == 0 {
		s.ended[id] |= asked
		s.assoc.Reset(id)
	}
}

// progress notes how far the closing of a channel has come.
func (s *Session) progress(id uint16, how ending) {
	e, ok := s.ended[id]
	if !ok {
		return
	}
	s.ended[id] |= how
	if s.ask(id); e|how == asked|weEnded|peerEnded {
		delete(s.ended, id)
		s.freed()
	}
}

func (s *Session) freed() {
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}

// violation resets a stream whose messages make no sense.
func (s *Session) violation(st *stream) {
	if st != nil {
		st.resetLocked(muxer.StreamProtocolViolation)
	}
}

// Package sctp is what WebRTC data channels need of SCTP: one association, over
// packets that are secured already, which carries messages on up to 65,535 streams,
// reliably and in order.
//
// An [Association] is a state machine. It has no goroutine, no socket and no clock: who
// runs it passes packets and the time in, sends what [Association.Next] returns, and
// calls [Association.Expire] at [Association.Deadline].
//
// It exists since the library that there is, pion/sctp 1.12, does not carry what the
// transport promises: over loopback it moved 10 to 18 MB/s, it drops a
// new stream if sixteen others wait to be accepted, and a stream that is not read
// stops all others.
//
//	sctp.go     the association: packets in, packets out, its beginning and end
//	send.go     messages out: fragments, acknowledgements, congestion control
//	receive.go  messages in: gaps, reassembly, the window
//	reset.go    streams that end
//	wire.go     the codec
//
// Spec: https://www.rfc-editor.org/rfc/rfc9260, as RFC 8831 uses it
//
// # Limits
//
// Messages are delivered in the order in which they were first sent, across all streams:
// a lost packet holds up those that follow it, as over TCP. Unordered and partially
// reliable messages are not sent, and received as if they were ordinary ones.
// There is one path, and a peer does not restart its association.
package sctp

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// PacketSize is how long a packet is at most.
	PacketSize = 1192

	// DataSize is how much of a message a packet carries.
	DataSize = PacketSize - headerSize - dataHeaderSize

	// MaxMessage is how long a message may be. A longer one is skipped.
	MaxMessage = 257 << 10

	// Window is how many bytes of messages are held for streams that do not read.
	Window = 2 << 20

	// MaxFlight is how many bytes are sent at most without an acknowledgement.
	MaxFlight = 4 << 20

	firstRTO = 500 * time.Millisecond // while nothing was measured
	minRTO   = 200 * time.Millisecond
	maxRTO   = 10 * time.Second

	idle   = 15 * time.Second // of silence, then a HEARTBEAT asks whether the peer is there
	silent = 30 * time.Second // of silence, then it is not
)

// Why an association ends.
var (
	ErrSilent   = errors.New("sctp: the peer does not answer")
	ErrProtocol = errors.New("sctp: protocol violation")
)

// An AbortError says that the peer ended the association.
type AbortError struct{ Code uint32 }

func (e *AbortError) Error() string { return fmt.Sprintf("sctp: ended by the peer, code %#x", e.Code) }

// Events are what an association tells. They are called while one of its methods
// runs, and may call Send, Reset, Drop and Consume.
type Events struct {
	Established func()                                       // both ends know of the association
	Message     func(stream uint16, ppid uint32, msg []byte) // has come; msg is the callee's, until it calls Consume
	TooLong     func(stream uint16)                          // a message has come that was skipped
	Sent        func(stream uint16, n int)                   // n bytes of what Send queued are on their way
	PeerReset   func(stream uint16)                          // the peer has ended its direction of a stream
	ResetDone   func(stream uint16)                          // the peer knows that ours ended
	Ended       func(err error)                              // the last event
}

// states, in order
const (
	closed       = iota // nothing was sent
	cookieWait          // INIT was sent
	cookieEchoed        // COOKIE ECHO was sent
	established
	ended
)

// An Association is one end of an association. Its methods must not be called
// concurrently.
type Association struct {
	ev    Events
	state int

	tag, peerTag uint32
	cookie       []byte // that the peer has to return
	echo         []byte // that we have to return
	streams      int    // how many we may use

	control   []control // to be sent, in this order
	deadlines [timers]time.Time
	tries     int       // of INIT or COOKIE ECHO
	heard     time.Time // when the last packet came

	send    sender
	receive receiver
	reset   resetter
}

// control is a chunk that is to be sent.
type control struct {
	chunk []byte
	init  bool // INIT or INIT ACK: in a packet of its own
	tag   uint32
}

// timers of an association
const (
	timerHandshake = iota
	timerRetransmit
	timerSack
	timerReset
	timerTrial
	timerIdle
	timers
)

// New makes an association. Both ends may [Association.Connect].
func New(now time.Time, ev Events) *Association {
	var r [20]byte
	rand.Read(r[:])
	a := &Association{ev: ev, tag: binary.BigEndian.Uint32(r[:]) | 1, cookie: append([]byte(nil), r[8:]...), streams: 1, heard: now}
	tsn := binary.BigEndian.Uint32(r[4:])
	a.send.init(tsn)
	a.reset.seq = tsn // "SHOULD be initialized to the same value as the initial TSN"
	a.deadlines[timerIdle] = now.Add(silent)
	return a
}

// Connect begins the association.
func (a *Association) Connect(now time.Time) {
	if a.state != closed {
		return
	}
	a.state = cookieWait
	a.sendInit(now)
}

func (a *Association) ownInit(cookie []byte) []byte {
	v := initValue{tag: a.tag, window: Window, out: 65535, in: 65535, tsn: a.send.firstTSN, cookie: cookie}
	return v.append(nil)
}

func (a *Association) sendInit(now time.Time) {
	a.control = append(a.control, control{chunk: appendChunk(nil, chunkInit, 0, a.ownInit(nil)), init: true})
	a.deadlines[timerHandshake] = now.Add(firstRTO << min(a.tries, 4))
	a.tries++
}

func (a *Association) sendCookie(now time.Time) {
	a.control = append(a.control, control{chunk: appendChunk(nil, chunkCookieEcho, 0, a.echo)})
	a.deadlines[timerHandshake] = now.Add(firstRTO << min(a.tries, 4))
	a.tries++
}

// Established tells that both ends know of the association.
func (a *Association) Established() bool { return a.state == established }

// Streams is how many streams we may use. It is 1 before the peer has said it.
func (a *Association) Streams() int { return a.streams }

// Receive takes a packet. It does not keep it. A malformed one is dropped.
func (a *Association) Receive(now time.Time, packet []byte) error {
	if a.state == ended {
		return nil
	}
	tag, chunks, err := openPacket(packet)
	if err != nil {
		return err
	}
	a.heard = now
	a.deadlines[timerIdle] = now.Add(idle)
	for packets := false; len(chunks) > 0 && a.state != ended; {
		typ, flags, value, rest, err := nextChunk(chunks)
		if err != nil {
			return err
		}
		chunks = rest
		switch {
		case typ == chunkInit:
			if tag != 0 {
				return malformed("INIT with a tag")
			}
			err = a.onInit(value)
		case tag != a.tag && (typ != chunkAbort || tag != a.peerTag):
			return malformed("verification tag")
		case typ == chunkData:
			if !packets {
				packets = true
				a.receive.packets++
			}
			err = a.onData(flags, value)
		default:
			err = a.onChunk(now, typ, value)
		}
		if err != nil {
			return err
		}
	}
	a.acknowledge(now)
	return nil
}

func (a *Association) onChunk(now time.Time, typ byte, value []byte) error {
	switch typ {
	case chunkInitAck:
		return a.onInitAck(now, value)
	case chunkCookieEcho:
		if subtle.ConstantTimeCompare(value, a.cookie) != 1 || a.peerTag == 0 {
			return malformed("cookie")
		}
		a.establish()
		a.control = append(a.control, control{chunk: appendChunk(nil, chunkCookieAck, 0, nil)})
	case chunkCookieAck:
		if a.state == cookieEchoed {
			a.establish()
		}
	case chunkSack:
		return a.onSack(now, value)
	case chunkHeartbeat:
		if len(a.control) < maxControl {
			a.control = append(a.control, control{chunk: appendChunk(nil, chunkHeartbeatAck, 0, value)})
		}
	case chunkReconfig:
		return a.onReconfig(value)
	case chunkAbort:
		a.end(&AbortError{abortCode(value)})
	case chunkShutdown:
		if a.state == established {
			a.control = append(a.control, control{chunk: appendChunk(nil, chunkShutdownAck, 0, nil)})
			a.end(&AbortError{})
		}
	case chunkHeartbeatAck, chunkError, chunkShutdownAck, chunkShutdownComplete:
	default: // "skip this chunk and continue processing", as the bits of those that we may meet say
		if typ < 128 {
			return malformed("unknown chunk")
		}
	}
	return nil
}

// maxControl is how many answers to chunks wait to be sent.
const maxControl = 64

// onInit answers INIT. Both ends may send one at the same time.
//
// "Upon receipt of an INIT chunk in the COOKIE-WAIT state, an endpoint MUST respond with
// an INIT ACK chunk using the same parameters it sent in its original INIT chunk".
// https://www.rfc-editor.org/rfc/rfc9260#section-5.2.1
func (a *Association) onInit(value []byte) error {
	v, err := parseInit(value)
	if err != nil {
		return err
	}
	if a.peerTag != 0 && a.peerTag != v.tag || len(a.control) >= maxControl {
		return nil // a second association, or a flood
	}
	a.meet(&v)
	a.control = append(a.control, control{chunk: appendChunk(nil, chunkInitAck, 0, a.ownInit(a.cookie)), init: true, tag: v.tag})
	return nil
}

// meet takes what the peer says of itself.
func (a *Association) meet(v *initValue) {
	if a.peerTag != 0 {
		return
	}
	a.peerTag = v.tag
	a.streams = int(v.in)
	a.send.meet(v)
	a.receive.cum = v.tsn - 1
	a.reset.peerSeq = v.tsn
}

func (a *Association) onInitAck(now time.Time, value []byte) error {
	if a.state != cookieWait {
		return nil
	}
	v, err := parseInit(value)
	if err != nil {
		return err
	}
	if v.cookie == nil {
		return malformed("INIT ACK without a cookie")
	}
	if a.peerTag != 0 && a.peerTag != v.tag {
		return malformed("INIT ACK of somebody else")
	}
	a.meet(&v)
	a.state, a.tries = cookieEchoed, 0
	a.echo = append([]byte(nil), v.cookie...)
	a.sendCookie(now)
	return nil
}

func (a *Association) establish() {
	if a.state >= established {
		return
	}
	a.state = established
	a.deadlines[timerHandshake] = time.Time{}
	a.echo = nil
	a.ev.Established()
}

// Next appends the next packet that is to be sent to b, or returns b if there is none.
func (a *Association) Next(now time.Time, b []byte) []byte {
	start := len(b)
	if len(a.control) > 0 && a.control[0].init {
		c := a.control[0]
		a.control = a.control[1:]
		b = append(beginPacket(b, c.tag), c.chunk...)
		endPacket(b[start:])
		return b
	}
	b = beginPacket(b, a.peerTag)
	room := func() int { return PacketSize - (len(b) - start) }
	for len(a.control) > 0 && !a.control[0].init && len(a.control[0].chunk) <= room() {
		b = append(b, a.control[0].chunk...)
		a.control = a.control[1:]
	}
	if a.state != ended && a.peerTag != 0 {
		data := a.state >= cookieEchoed && a.maySend(now)
		if a.receive.sackNow || data && a.receive.owed {
			b = a.appendSack(b, room())
		}
		if a.state == established {
			b = a.appendReset(now, b, room())
		}
		for data {
			n := len(b)
			if b = a.appendData(now, b, room()); len(b) == n {
				break
			}
		}
	}
	if len(b) == start+headerSize {
		return b[:start]
	}
	endPacket(b[start:])
	return b
}

// Deadline is when Expire is to be called; zero: never.
func (a *Association) Deadline() (first time.Time) {
	for _, t := range a.deadlines {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// Expire does what is due. There may be packets to send afterwards.
func (a *Association) Expire(now time.Time) {
	for i := range a.deadlines {
		if t := a.deadlines[i]; t.IsZero() || now.Before(t) || a.state == ended {
			continue
		}
		a.deadlines[i] = time.Time{}
		switch i {
		case timerHandshake:
			switch a.state {
			case cookieWait:
				a.sendInit(now)
			case cookieEchoed:
				a.sendCookie(now)
			}
		case timerRetransmit:
			a.onRetransmit(now)
		case timerSack:
			a.receive.sackNow = true
		case timerTrial:
			a.send.onTrial()
		case timerReset:
			a.reset.again = true
		case timerIdle:
			if quiet := now.Sub(a.heard); quiet >= silent {
				a.end(ErrSilent)
			} else {
				if !a.receive.begun {
					a.receive.message = nil // an idle connection holds nothing
				}
				a.deadlines[timerIdle] = now.Add(min(silent-quiet, (silent-idle)/3))
				if a.state == established {
					a.control = append(a.control, control{chunk: appendChunk(nil, chunkHeartbeat, 0, appendParam(nil, 1, nil))})
				}
			}
		}
	}
}

// end ends the association. What waits in control is still sent.
func (a *Association) end(err error) {
	if a.state == ended {
		return
	}
	a.state = ended
	a.deadlines = [timers]time.Time{}
	a.receive.drop()
	a.ev.Ended(err)
}

// abortReason is what we write into an ABORT, for programs and for people.
const abortReason = "libp2p connection error code 0x"

// Abort ends the association, at once and without an event, and tells the peer why.
// Next has the packet that does.
//
// "User-Initiated Abort […] Upper Layer Abort Reason"
// https://www.rfc-editor.org/rfc/rfc9260#section-3.3.10.12
func (a *Association) Abort(code uint32) {
	if a.state == ended {
		return
	}
	if a.peerTag != 0 {
		cause := appendParam(nil, causeUserAbort, fmt.Appendf(nil, "%s%x", abortReason, code))
		a.control = []control{{chunk: appendChunk(nil, chunkAbort, 0, cause)}}
	} else {
		a.control = nil
	}
	a.ev.Ended = func(error) {}
	a.end(nil)
}

// abortCode is the code of a peer that is like us, or 0.
func abortCode(causes []byte) uint32 {
	for len(causes) > 0 {
		typ, value, rest, err := nextParam(causes)
		if err != nil {
			return 0
		}
		if hex, ok := strings.CutPrefix(string(value), abortReason); ok && typ == causeUserAbort {
			code, _ := strconv.ParseUint(hex, 16, 32)
			return uint32(code)
		}
		causes = rest
	}
	return 0
}

// fail ends the association because of what the peer did.
func (a *Association) fail(err error) {
	a.control = append(a.control, control{chunk: appendChunk(nil, chunkAbort, 0, nil)})
	a.end(err)
}

package sctp

import (
	"slices"
	"time"
)

const (
	// ackDelay is how long an acknowledgement waits for something to travel with.
	ackDelay = 20 * time.Millisecond

	maxSpans  = 256 // gaps between what has come; what would make more is dropped
	sackSpans = 64  // that fit into a SACK
	chunkCost = 64  // bytes that a chunk out of order costs beyond its data
)

// receiver is the half of an association that receives messages.
type receiver struct {
	cum     uint32 // TSN up to which all has come
	spans   []span // that have come beyond it, in order
	early   map[uint32]dataValue
	message []byte // as far as it has come; its room is used again
	begun   bool   // there is one
	skip    bool   // it is too long
	held    int    // bytes in early and message, and of messages that have not been consumed

	said    uint32 // the window that was announced last
	packets int    // with DATA, since the last acknowledgement
	sackNow bool
	owed    bool
}

// drop forgets what is incomplete.
func (r *receiver) drop() { r.early, r.message, r.spans = nil, nil, nil }

func (r *receiver) window() uint32 { return uint32(max(0, Window-r.held)) }

// Consume gives back n bytes of messages.
func (a *Association) Consume(n int) {
	r := &a.receive
	r.held -= n
	// Who waits for the window must hear of it.
	if a.state == established && r.window() > r.said && r.window()-r.said >= Window/8 {
		r.sackNow = true
	}
}

// Held is how many bytes of messages have not been consumed.
func (a *Association) Held() int { return a.receive.held }

func (a *Association) onData(flags byte, value []byte) error {
	if a.state != established {
		return nil // will be sent again
	}
	v, err := parseData(flags, value)
	if err != nil {
		return err
	}
	r := &a.receive
	r.owed = true
	if flags&flagImmediate != 0 {
		r.sackNow = true
	}
	switch {
	case v.tsn == r.cum+1:
		if r.window() == 0 && len(r.spans) == 0 {
			r.sackNow = true // a probe
			return nil
		}
		r.cum++
		if a.take(&v); a.state == ended {
			return nil
		}
		for len(r.spans) > 0 && r.spans[0].first == r.cum+1 && a.state == established {
			for last := r.spans[0].last; r.cum != last; {
				r.cum++
				e := r.early[r.cum]
				delete(r.early, r.cum)
				r.held -= len(e.data) + chunkCost
				if a.take(&e); a.state == ended {
					return nil
				}
			}
			r.spans = r.spans[1:]
		}
		a.checkPeerReset()
	case less(r.cum, v.tsn) && v.tsn-r.cum < 1<<16:
		r.sackNow = true
		if int(r.window()) < len(v.data)+chunkCost || !r.note(v.tsn) {
			return nil
		}
		if r.early == nil {
			r.early = make(map[uint32]dataValue)
		}
		v.data = slices.Clone(v.data)
		r.early[v.tsn] = v
		r.held += len(v.data) + chunkCost
	default:
		r.sackNow = true // known already, or out of reach
	}
	if len(r.spans) > 0 {
		r.sackNow = true
	}
	return nil
}

// note adds a TSN to the spans. It is false if it was there, or there are too many.
func (r *receiver) note(tsn uint32) bool {
	i := len(r.spans)
	for i > 0 && less(tsn, r.spans[i-1].first) {
		i--
	}
	if i > 0 && !less(r.spans[i-1].last, tsn) {
		return false
	}
	before := i > 0 && r.spans[i-1].last+1 == tsn
	after := i < len(r.spans) && r.spans[i].first == tsn+1
	switch {
	case before && after:
		r.spans[i-1].last = r.spans[i].last
		r.spans = slices.Delete(r.spans, i, i+1)
	case before:
		r.spans[i-1].last = tsn
	case after:
		r.spans[i].first = tsn
	case len(r.spans) >= maxSpans:
		return false
	default:
		r.spans = slices.Insert(r.spans, i, span{tsn, tsn})
	}
	return true
}

// take takes the next chunk, in the order of TSNs. A message is a run of them.
//
// "the fragments of a user message MUST be assigned TSNs in strict sequence"
// https://www.rfc-editor.org/rfc/rfc9260#section-6.9
func (a *Association) take(v *dataValue) {
	r := &a.receive
	begin, end := v.flags&flagBegin != 0, v.flags&flagEnd != 0
	if begin == r.begun {
		a.fail(ErrProtocol)
		return
	}
	r.begun = !end
	switch {
	case r.skip:
	case len(r.message)+len(v.data) > MaxMessage:
		r.skip = true
		r.held -= len(r.message)
		r.message = r.message[:0]
		a.ev.TooLong(v.stream)
	default:
		r.message = append(r.message, v.data...)
		r.held += len(v.data)
	}
	if !end {
		return
	}
	msg, skip := slices.Clone(r.message), r.skip
	r.message, r.skip = r.message[:0], false
	if !skip {
		a.ev.Message(v.stream, v.ppid, msg)
	}
}

// acknowledge decides when to answer what has come in a packet.
//
// "an acknowledgement SHOULD be generated for at least every second packet (not every
// second DATA chunk) received, and SHOULD be generated within 200 ms".
// https://www.rfc-editor.org/rfc/rfc9260#section-6.2
func (a *Association) acknowledge(now time.Time) {
	r := &a.receive
	switch {
	case !r.owed:
	case r.packets >= 2:
		r.sackNow = true
	case a.deadlines[timerSack].IsZero():
		a.deadlines[timerSack] = now.Add(ackDelay)
	}
}

func (a *Association) appendSack(b []byte, room int) []byte {
	r := &a.receive
	n := min(len(r.spans), sackSpans, (room-16)/4)
	if n < 0 {
		return b
	}
	r.said = r.window()
	r.sackNow, r.owed, r.packets = false, false, 0
	a.deadlines[timerSack] = time.Time{}
	return appendSack(b, r.cum, r.said, r.spans[:n])
}

package sctp

import (
	"encoding/binary"
	"slices"
	"time"
)

// maxResets is how many streams one request resets.
const maxResets = 256

// resetter is what an association knows of streams that end.
//
// https://www.rfc-editor.org/rfc/rfc6525
type resetter struct {
	waiting []uint16 // streams that are to be reset when all that was sent on them has arrived
	check   bool     // one of them may be
	seq     uint32   // of our next request
	asked   []uint16 // streams of the request that is under way; "MUST NOT be more than one"
	request []byte   // that one
	again   bool     // it is to be sent
	tries   int

	peerSeq  uint32        // of the peer's next request
	deferred *resetRequest // that comes after TSNs that have not come
}

// Reset ends our direction of a stream, after what was queued.
func (a *Association) Reset(stream uint16) {
	a.reset.waiting = append(a.reset.waiting, stream)
	a.reset.check = true
}

// Renew says that the peer knows of the reset of a stream: it uses it again. What was queued
// is forgotten, but for a message that was sent in part.
func (a *Association) Renew(stream uint16) {
	gone := func(id uint16) bool { return id == stream }
	a.reset.asked = slices.DeleteFunc(a.reset.asked, gone)
	a.reset.waiting = slices.DeleteFunc(a.reset.waiting, gone)
	a.drop(stream, func(outMessage) bool { return true })
	delete(a.send.streams, stream)
}

// appendReset appends a request, if it is time for one.
func (a *Association) appendReset(now time.Time, b []byte, room int) []byte {
	r := &a.reset
	if r.request == nil && r.check && len(r.waiting) > 0 {
		a.makeReset()
	}
	r.check = false
	if r.request == nil || !r.again || len(r.request) > room {
		return b
	}
	r.again = false
	a.deadlines[timerReset] = now.Add(min(max(2*a.send.srtt, minRTO)<<min(r.tries, 8), maxRTO))
	r.tries++
	return append(b, r.request...)
}

// makeReset makes a request for those streams of which all has arrived.
func (a *Association) makeReset() {
	r := &a.reset
	acked := a.send.tsn() - 1
	rest := r.waiting[:0]
	for _, id := range r.waiting {
		st := a.send.streams[id]
		if len(r.asked) == maxResets || st != nil && (len(st.queue) > 0 || st.sent && less(acked, st.last)) {
			rest = append(rest, id)
		} else {
			r.asked = append(r.asked, id)
		}
	}
	r.waiting = rest
	if len(r.asked) == 0 {
		return
	}
	// All that has a TSN up to this one has arrived, so the peer can answer at once.
	v := resetRequest{seq: r.seq, response: r.peerSeq - 1, last: acked, streams: r.asked}
	r.request = appendChunk(nil, chunkReconfig, 0, v.append(nil))
	r.seq++
	r.again, r.tries = true, 0
}

func (a *Association) onReconfig(b []byte) error {
	if a.state != established {
		return nil
	}
	for len(b) > 0 {
		typ, value, rest, err := nextParam(b)
		if err != nil {
			return err
		}
		b = rest
		switch typ {
		case paramOutgoingReset:
			v, err := parseReset(value)
			if err != nil {
				return err
			}
			a.onPeerReset(&v)
		case paramReconfigResponse:
			if len(value) < 8 {
				return malformed("response")
			}
			a.onResponse(binary.BigEndian.Uint32(value), binary.BigEndian.Uint32(value[4:]))
		default: // all others change what we have no use for
			if len(value) < 4 {
				return malformed("re-configuration")
			}
			a.reset.peerSeq = binary.BigEndian.Uint32(value) + 1
			a.respond(binary.BigEndian.Uint32(value), resultDenied)
		}
	}
	return nil
}

func (a *Association) respond(seq, result uint32) {
	if len(a.control) < maxControl {
		a.control = append(a.control, control{chunk: appendChunk(nil, chunkReconfig, 0, appendResponse(nil, seq, result))})
	}
}

// onPeerReset takes a request. pion/sctp has several under way. They are carried out
// one after the other: what comes while one waits will come again.
func (a *Association) onPeerReset(v *resetRequest) {
	r := &a.reset
	switch {
	case r.deferred != nil:
	case v.seq == r.peerSeq:
		r.peerSeq++
		r.deferred = v
		if a.checkPeerReset(); r.deferred != nil {
			a.respond(v.seq, resultInProgress)
		}
	case less(v.seq, r.peerSeq): // again: the answer was lost
		a.respond(v.seq, resultPerformed)
	}
}

// checkPeerReset does what the peer has asked for, once all has come that it had sent.
//
// "If the Sender's Last Assigned TSN is greater than the cumulative acknowledgment point,
// then […] 'In progress'".
// https://www.rfc-editor.org/rfc/rfc6525#section-5.2.2
func (a *Association) checkPeerReset() {
	r := &a.reset
	v := r.deferred
	if v == nil || less(a.receive.cum, v.last) {
		return
	}
	r.deferred = nil
	a.respond(v.seq, resultPerformed)
	for _, id := range v.streams {
		a.ev.PeerReset(id)
	}
}

func (a *Association) onResponse(seq, result uint32) {
	r := &a.reset
	if r.request == nil || seq != r.seq-1 {
		return
	}
	if result == resultInProgress {
		return // the timer asks again
	}
	asked := r.asked
	r.asked, r.request, r.again = nil, nil, false
	r.check = true
	a.deadlines[timerReset] = time.Time{}
	for _, id := range asked {
		delete(a.send.streams, id)
		a.ev.ResetDone(id)
	}
}

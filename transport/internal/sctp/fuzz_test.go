package sctp

import (
	"testing"
	"time"
)

// FuzzReceive: whatever comes in a packet whose checksum is right, the association stands.
func FuzzReceive(f *testing.F) {
	n := newNetwork(f, time.Millisecond, 0)
	n.connect()
	var packets [][]byte
	keep := func(b []byte) { packets = append(packets, append([]byte(nil), b...)) }
	n.ends[0].Send(2, 53, make([]byte, 3000))
	n.ends[0].Reset(2)
	for _, e := range n.ends {
		for b := e.Next(n.now, nil); len(b) > 0; b = e.Next(n.now, nil) {
			keep(b)
		}
	}
	v := initValue{tag: 1, window: 1, tsn: 1, out: 1, in: 1, cookie: []byte("c")}
	for _, c := range [][]byte{
		appendChunk(nil, chunkInit, 0, v.append(nil)),
		appendChunk(nil, chunkInitAck, 0, v.append(nil)),
		appendSack(nil, 1, 1, []span{{3, 4}}),
		appendChunk(nil, chunkReconfig, 0, (&resetRequest{seq: 1, last: 1, streams: []uint16{1, 2}}).append(nil)),
		appendChunk(nil, chunkReconfig, 0, appendResponse(nil, 1, resultPerformed)),
		appendChunk(nil, chunkAbort, 0, appendParam(nil, causeUserAbort, []byte(abortReason+"7"))),
		appendChunk(nil, chunkHeartbeat, 0, []byte("hello")),
	} {
		keep(append(beginPacket(nil, 0), c...))
	}
	for _, p := range packets {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := newNetwork(t, time.Millisecond, 0)
		n.connect()
		e := n.ends[1]
		e.Send(4, 53, make([]byte, 5000))
		e.Next(n.now, nil)
		if len(b) >= headerSize {
			b = append([]byte(nil), b...)
			if b[4] != 0 { // most are to get past the tag
				copy(b[4:], beginPacket(nil, e.tag)[4:8])
			}
			endPacket(b)
		}
		for range 3 {
			e.Receive(n.now, b)
			for i := 0; ; i++ {
				if len(e.Next(n.now, nil)) == 0 {
					break
				}
				if i > 1000 {
					t.Fatal("it never stops to send")
				}
			}
			if d := e.Deadline(); !d.IsZero() && d.After(n.now) {
				n.now = d
			}
			e.Expire(n.now)
		}
		if h := e.Held(); h < 0 || h > Window+PacketSize {
			t.Fatalf("%d bytes are held", h)
		}
	})
}

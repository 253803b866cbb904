package webrtc

import (
	"bytes"
	"net/netip"
	"testing"
)

// FuzzMessage: whatever comes on a channel is a message, a part of one, or an error; and
// what was read is written the same.
func FuzzMessage(f *testing.F) {
	f.Add(appendMessage(nil, message{flag: flagFin, payload: []byte("hello"), code: 7}))
	f.Add(appendMessage(nil, message{flag: flagNone}))
	f.Add(openMessage())
	f.Add([]byte{0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		parseOpen(b)
		m, _, ok, err := nextMessage(b)
		if err != nil || !ok {
			return
		}
		again, rest, ok, err := nextMessage(appendMessage(nil, m))
		if err != nil || !ok || len(rest) > 0 || again.flag != m.flag || again.code != m.code || !bytes.Equal(again.payload, m.payload) {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}

// FuzzSTUN: an answer is never longer than twice the request.
func FuzzSTUN(f *testing.F) {
	for _, v := range []int{1, 2} {
		c := newCredentials(v)
		m, err := c.request()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.Raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := answerRequest(b, netip.MustParseAddrPort("[2001:db8::1]:1"))
		if err == nil && len(r) > 2*len(b) {
			t.Fatalf("%d bytes answer %d", len(r), len(b))
		}
	})
}

// FuzzRecord: records lie within their datagram.
func FuzzRecord(f *testing.F) {
	c := &secured{}
	if err := c.out.init(make([]byte, 16), make([]byte, 4)); err != nil {
		f.Fatal(err)
	}
	c.in = c.out
	f.Add(c.seal(c.seal(nil, recordData, []byte("hello")), recordAlert, []byte{1, 0}))
	f.Add([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		for n := 0; ; n++ {
			r, rest, ok := nextRecord(b)
			if !ok {
				return
			}
			if len(r.raw)+len(rest) != len(b) {
				t.Fatal("bytes are lost")
			}
			x := *c
			x.open(&r)
			b = rest
		}
	})
}

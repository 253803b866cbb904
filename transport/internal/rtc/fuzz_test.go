package rtc

import (
	"bytes"
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

// FuzzRecord: records lie within their datagram.
func FuzzRecord(f *testing.F) {
	c := loop(f)
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

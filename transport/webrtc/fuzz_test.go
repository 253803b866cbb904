package webrtc

import (
	"net/netip"
	"testing"
)

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

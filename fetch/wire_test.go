package fetch

import (
	"bytes"
	"testing"

	"github.com/plexus-p2p/plexus/internal/pb"
)

func TestWire(t *testing.T) {
	// By hand from the spec's messages.
	for _, tt := range []struct {
		name      string
		got, want []byte
	}{
		{"request", appendRequest(nil, "k1"), []byte("\x04\x0a\x02k1")},
		{"empty request", appendRequest(nil, ""), []byte("\x00")},
		{"found", response{data: []byte("v")}.append(nil), []byte("\x03\x12\x01v")},
		{"found nothing in it", response{}.append(nil), []byte("\x00")},
		{"not found", response{status: statusNotFound}.append(nil), []byte("\x02\x08\x01")},
		{"error", response{status: statusError}.append(nil), []byte("\x02\x08\x02")},
	} {
		if !bytes.Equal(tt.got, tt.want) {
			t.Errorf("%s: got %x, want %x", tt.name, tt.got, tt.want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("\x0a\x02k1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := parseRequest(b)
		if err != nil {
			return
		}
		msg, err := pb.ReadDelimited(bytes.NewReader(appendRequest(nil, key)), len(b)+overhead, nil)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseRequest(msg); err != nil || again != key {
			t.Errorf("%q became %q, %v", key, again, err)
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("\x12\x01v"))
	f.Add([]byte("\x08\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again response
		if r.parse(b) != nil {
			return
		}
		msg, err := pb.ReadDelimited(bytes.NewReader(r.append(nil)), len(b)+overhead, nil)
		if err == nil {
			err = again.parse(msg)
		}
		if err != nil || again.status != r.status || !bytes.Equal(again.data, r.data) {
			t.Errorf("%v became %v, %v", r, again, err)
		}
		r.status.err()
	})
}

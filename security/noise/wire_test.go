package noise

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/plexus-p2p/plexus/internal/pb"
)

func TestPayload(t *testing.T) {
	p := payload{key: []byte("key"), sig: []byte("sig"), certHashes: [][]byte{[]byte("h1"), []byte("h2")}, muxers: []string{"/a", "/b"}}
	b := appendPayload(nil, p)
	const want = "\x0a\x03key\x12\x03sig\x22\x10\x0a\x02h1\x0a\x02h2\x12\x02/a\x12\x02/b"
	if string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}
	got, err := parsePayload(b)
	if err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("got %+v, %v, want %+v", got, err, p)
	}
	if b := appendPayload(nil, payload{key: []byte("k"), sig: []byte("s")}); string(b) != "\x0a\x01k\x12\x01s" {
		t.Errorf("without extensions: got %q", b)
	}
}

func TestPayloadBounds(t *testing.T) {
	id := appendIdentity(nil, []byte("k"), []byte("s"))
	names := make([]string, maxMuxers+1)
	for i := range names {
		names[i] = fmt.Sprint("/", i)
	}
	hashes := make([][]byte, maxCertHashes+1)
	for _, c := range []struct {
		name   string
		b      []byte
		muxers int
		err    error
	}{
		{"as many muxers as may be", appendExtensions(nil, nil, names[1:]), maxMuxers, nil},
		{"one more", appendExtensions(nil, nil, names), 0, nil},
		{"one more, in two parts", append(appendExtensions(nil, nil, names[1:]), appendExtensions(nil, nil, names[:1])...), 0, nil},
		{"two parts", append(appendExtensions(nil, nil, names[:1]), appendExtensions(nil, nil, names[1:2])...), 2, nil},
		{"as many hashes as may be", appendExtensions(nil, hashes[1:], nil), 0, nil},
		{"one more hash", appendExtensions(nil, hashes, nil), 0, errTooMany},
		{"no protobuf", []byte{0xff}, 0, pb.ErrMalformed},
		{"no protobuf within", []byte{0x22, 1, 0xff}, 0, pb.ErrMalformed},
		{"a number for a key", []byte{0x08, 1}, 0, pb.ErrMalformed},
	} {
		p, err := parsePayload(append(slices.Clip(id), c.b...))
		if !errors.Is(err, c.err) || err == nil && len(p.muxers) != c.muxers {
			t.Errorf("%s: got %d muxers, %v, want %d, %v", c.name, len(p.muxers), err, c.muxers, c.err)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(appendPayload(nil, payload{key: []byte("key"), sig: []byte("sig"), certHashes: [][]byte{{1}}, muxers: []string{"/a"}}))
	f.Add([]byte{0x22, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePayload(b)
		if err != nil {
			return
		}
		if len(p.muxers) > maxMuxers || len(p.certHashes) > maxCertHashes {
			t.Fatalf("%d muxers, %d hashes", len(p.muxers), len(p.certHashes))
		}
		again := appendPayload(nil, p)
		q, err := parsePayload(again)
		if err != nil || !reflect.DeepEqual(p, q) || !bytes.Equal(again, appendPayload(nil, q)) {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}

package webtransport

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go/http3"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/transport/internal/certhash"
)

var hashA, hashB = certhash.Of([]byte("a")), certhash.Of([]byte("b"))

func TestAddr(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.7:4001")
	a := withHashes(at, hashA, hashB)
	const want = "/ip4/192.0.2.7/udp/4001/quic-v1/webtransport/certhash/uEiDKl4ESyhu9yvrCMbOaI9xNp4bv-BR8TnK5gHeFr-5Iuw/certhash/uEiA-I-gWADlZSjOJT2Vk4bE0i716AIjULErLc-6u1ZwAnQ"
	if a.String() != want {
		t.Errorf("got %v, want %v", a, want)
	}
	got, hashes, ok := parseAddr(a)
	if !ok || got != at || !slices.EqualFunc(hashes, [][]byte{hashA, hashB}, bytes.Equal) {
		t.Errorf("got %v %x %v", got, hashes, ok)
	}
	if withHashes(netip.AddrPort{}) != nil || withHashes(at, []byte{1}) != nil {
		t.Error("an address of nothing")
	}
}

func FuzzAddr(f *testing.F) {
	f.Add(withHashes(netip.MustParseAddrPort("192.0.2.7:4001"), hashA, hashB).Bytes())
	f.Add(ma.StringCast("/ip6zone/eth0/ip6/fe80::1/udp/1/quic-v1/webtransport").Bytes())
	f.Add(ma.StringCast("/ip4/1.2.3.4/udp/1/quic-v1/webtransport/p2p-circuit").Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return
		}
		at, hashes, ok := parseAddr(a)
		if again := withHashes(at, hashes...); ok && !a.Equal(again) {
			// An IPv4 address in IPv6's clothes loses them.
			if got, h, ok := parseAddr(again); !ok || got != at || !slices.EqualFunc(h, hashes, bytes.Equal) {
				t.Errorf("%v became %v", a, again)
			}
		}
	})
}

// "floor(n / 0x1e)": the codes of HTTP/3 of the form 0x1f * N + 0x21 are reserved.
func TestCodes(t *testing.T) {
	for _, c := range []struct {
		code muxer.Code
		wire uint64
	}{
		{0, 0x52e4a40fa8db}, {1, 0x52e4a40fa8dc}, {0x1d, 0x52e4a40fa8f8}, {0x1e, 0x52e4a40fa8fa}, {0x1000, 0x52e4a40fb963}, {1<<32 - 1, 0x52e5ac983162},
	} {
		if w := toWire(c.code); w != c.wire || fromWire(w, 9) != c.code {
			t.Errorf("%#x is %#x on the wire, which is %#x; want %#x", c.code, w, fromWire(w, 9), c.wire)
		}
	}
	for _, w := range []uint64{0, 0x100, 0x10c, firstCode - 1, lastCode + 1, 0x52e4a40fa8f9, 1<<62 - 1} {
		if c := fromWire(w, 9); c != 0 {
			t.Errorf("%#x is %#x, want none", w, c)
		}
	}
}

func FuzzCodes(f *testing.F) {
	f.Add(uint32(0), uint64(0x100))
	f.Add(uint32(0x1e), uint64(firstCode+0x1e))
	f.Fuzz(func(t *testing.T, c uint32, w uint64) {
		wire := toWire(muxer.Code(c))
		if got := fromWire(wire, 0); got != muxer.Code(c) || (wire-0x21)%0x1f == 0 {
			t.Errorf("%#x became %#x became %#x", c, wire, got)
		}
		if got := fromWire(w, 0); got != 0 && toWire(got) != w {
			t.Errorf("%#x became %#x became %#x", w, got, toWire(got))
		}
	})
}

func TestPrefix(t *testing.T) {
	for _, c := range []struct {
		b    string
		more int
		err  error
	}{
		{"", 1, nil},
		{"\x40", 1, nil},
		{"\x40\x41", 1, nil},
		{"\x40\x41\x04", 0, nil},
		{"\x80\x00\x00\x41", 1, nil},                           // as long as one likes
		{"\x80\x00\x00\x41\xc0", 7, nil},                       //
		{"\x80\x00\x00\x41\xc0\x00\x00\x00\x00\x00", 2, nil},   //
		{"\x40\x41\xc0\x00\x00\x00\x00\x00\x00\x04", 0, nil},   //
		{"\x01", 0, errPrefix},                                 // a request
		{"\x40\x42", 0, errPrefix},                             //
		{"\x40\x41\x00", 0, errPrefix},                         // another session
		{"\x40\x41\x40\x41", 0, errPrefix},                     //
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff", 0, errPrefix}, //
	} {
		if more, err := parsePrefix([]byte(c.b), 4); more != c.more || err != c.err {
			t.Errorf("%q: got %d, %v, want %d, %v", c.b, more, err, c.more, c.err)
		}
	}
}

func FuzzPrefix(f *testing.F) {
	f.Add(appendPrefix(nil, 4), uint64(4))
	f.Add([]byte("\x80\x00\x00\x41\xc0\x00\x00\x00\x00\x00\x00\x04"), uint64(4))
	f.Fuzz(func(t *testing.T, b []byte, session uint64) {
		session &= 1<<62 - 1
		// As a stream does: never more bytes than asked for, and never stuck.
		var head []byte
		for range 20 {
			more, err := parsePrefix(head, session)
			if err != nil || more == 0 {
				if err == nil && len(head) > 16 {
					t.Errorf("a prefix of %d bytes", len(head))
				}
				break
			}
			if more > 8 || more < 0 {
				t.Fatalf("%d bytes more", more)
			}
			if more > len(b) {
				break
			}
			head, b = append(head, b[:more]...), b[more:]
		}
		own := appendPrefix(nil, session)
		for i := range own {
			if more, err := parsePrefix(own[:i], session); more == 0 || err != nil || i+more > len(own) {
				t.Errorf("%d bytes of %x: %d, %v", i, own, more, err)
			}
		}
		if more, err := parsePrefix(own, session); more != 0 || err != nil {
			t.Errorf("%x: %d, %v", own, more, err)
		}
	})
}

func TestReadClose(t *testing.T) {
	long := append([]byte("\x68\x43\x44\x04"), make([]byte, 4+1024)...)
	for _, c := range []struct {
		name, b string
		code    muxer.Code
		err     error
	}{
		{"the end", "", 0, nil},
		{"a code", string(appendClose(nil, 0x1006)), 0x1006, nil},
		{"a code and a message", "\x68\x43\x07\x00\x00\x00\x05bye", 5, nil},
		{"the longest message", string(long), 0, nil},
		{"others before", "\x00\x03abc\x78\xae\x00\x68\x43\x04\x00\x00\x00\x05", 5, nil},
		{"others, and the end", "\x00\x03abc", 0, nil},
		{"too long a message", "\x68\x43\x44\x05\x00\x00\x00\x05", 0, muxer.ErrProtocol},
		{"no code", "\x68\x43\x03\x00\x00\x00", 0, muxer.ErrProtocol},
		{"half a capsule", "\x68\x43\x04\x00", 0, io.ErrUnexpectedEOF},
		{"half a type", "\x68", 0, io.ErrUnexpectedEOF},
		{"half of another", "\x00\x03ab", 0, io.ErrUnexpectedEOF},
	} {
		if code, err := readClose(bytes.NewReader([]byte(c.b))); code != c.code || !errors.Is(err, c.err) {
			t.Errorf("%s: got %#x, %v, want %#x, %v", c.name, code, err, c.code, c.err)
		}
	}
}

func FuzzReadClose(f *testing.F) {
	f.Add([]byte("\x00\x03abc\x68\x43\x07\x00\x00\x00\x05bye"))
	f.Add([]byte("\x68\x43\x44\x05\x00\x00\x00\x05"))
	f.Fuzz(func(t *testing.T, b []byte) {
		code, err := readClose(bytes.NewReader(b))
		if err != nil && code != 0 {
			t.Errorf("code %#x and %v", code, err)
		}
		if err == nil {
			if again, err := readClose(bytes.NewReader(appendClose(nil, code))); again != code || err != nil {
				t.Errorf("%#x became %#x, %v", code, again, err)
			}
		}
	})
}

func TestRefusal(t *testing.T) {
	good := http.Request{Method: http.MethodConnect, Proto: protocol, URL: &url.URL{Path: path, RawQuery: query}}
	with := func(change func(*http.Request)) *http.Request {
		r := good
		u := *r.URL
		r.URL = &u
		change(&r)
		return &r
	}
	for _, c := range []struct {
		name string
		r    *http.Request
		want int
	}{
		{"good", &good, 0},
		{"an older draft", with(func(r *http.Request) { r.Proto = protocolDraft }), 0},
		{"more in the query", with(func(r *http.Request) { r.URL.RawQuery = "x=1&type=noise" }), 0},
		{"another path", with(func(r *http.Request) { r.URL.Path = "/" }), 404},
		{"GET", with(func(r *http.Request) { r.Method = http.MethodGet }), 405},
		{"a WebSocket", with(func(r *http.Request) { r.Proto = "websocket" }), 501},
		{"a plain CONNECT", with(func(r *http.Request) { r.Proto = "HTTP/3.0" }), 501},
		{"no type", with(func(r *http.Request) { r.URL.RawQuery = "" }), 400},
		{"another type", with(func(r *http.Request) { r.URL.RawQuery = "type=tls" }), 400},
		{"two types", with(func(r *http.Request) { r.URL.RawQuery = "type=noise&type=tls" }), 400},
		{"no query", with(func(r *http.Request) { r.URL.RawQuery = "%" }), 400},
	} {
		if got := refusal(c.r); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

// Servers of several drafts.
func TestProtocolFor(t *testing.T) {
	s := func(connect, datagrams bool, other ...uint64) *http3.Settings {
		all := make(map[uint64]uint64)
		for _, id := range other {
			all[id] = 1
		}
		return &http3.Settings{EnableExtendedConnect: connect, EnableDatagrams: datagrams, Other: all}
	}
	for _, c := range []struct {
		name string
		s    *http3.Settings
		want string
	}{
		{"draft 15", s(true, true, settingEnabled, settingDraft2, settingMaxSessions), protocol},
		{"draft 13", s(true, true, settingMaxSessions), protocolDraft},
		{"draft 2", s(true, true, settingDraft2), protocolDraft},
		{"HTTP/3", s(true, true), ""},
		{"no datagrams", s(true, false, settingEnabled), ""},
		{"no extended CONNECT", s(false, true, settingEnabled), ""},
		{"said no", &http3.Settings{EnableExtendedConnect: true, EnableDatagrams: true, Other: map[uint64]uint64{settingEnabled: 0}}, ""},
	} {
		got, err := protocolFor(c.s)
		if got != c.want || (c.want == "") != errors.Is(err, ErrNoSession) {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

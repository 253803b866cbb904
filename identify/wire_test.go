package identify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/plexus-p2p/plexus/internal/pb"
)

// full is a message with every field, of n protocols.
func full(n int) message {
	m := message{
		key:     []byte("key"),
		addrs:   [][]byte{{4, 127, 0, 0, 1, 6, 15, 161}, {4, 192, 0, 2, 1, 6, 15, 161}},
		version: []byte("/my-network/0.1.0"),
		agent:   []byte("agent/1"),
		record:  bytes.Repeat([]byte("r"), 300),
	}
	for i := range n {
		m.protocols = append(m.protocols, fmt.Appendf(nil, "/a/protocol/of/some/length/%d", i))
	}
	return m
}

// readAll reads an answer as a peer does, and returns the sizes of its messages too.
func readAll(t *testing.T, b []byte) (m message, sizes []int) {
	t.Helper()
	sc := newScratch().(*scratch)
	if err := sc.read(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	for r := bytes.NewReader(b); ; {
		msg, err := pb.ReadDelimited(r, maxMessage, nil)
		if err == io.EOF {
			return sc.m, sizes
		}
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(msg))
	}
}

func (m message) equal(o message) bool {
	return bytes.Equal(m.append(nil), o.append(nil))
}

// The sizes are those that deployed peers take: 4 KiB and one message for
// rust-libp2p, which then misses the record alone.
func TestFrames(t *testing.T) {
	for _, tt := range []struct {
		protocols, messages int
	}{
		{protocols: 0, messages: 1},
		{protocols: 40, messages: 1},
		{protocols: 60, messages: 2}, // more than 2 KiB: the record for itself
		{protocols: 110, messages: 2},
		{protocols: 200, messages: 3},
		{protocols: 1000, messages: 9},
		{protocols: 2000, messages: 10},
	} {
		t.Run(fmt.Sprint(tt.protocols), func(t *testing.T) {
			want := full(tt.protocols)
			first, rest := want.frames()
			want.observed = []byte{4, 203, 0, 113, 7, 6, 15, 161}
			got, sizes := readAll(t, appendAnswer(nil, first, rest, want.observed))
			if len(sizes) != tt.messages {
				t.Errorf("%d messages of %v bytes, want %d", len(sizes), sizes, tt.messages)
			}
			if slices.Max(sizes) > sendMessage {
				t.Errorf("messages of %v bytes, want at most %d", sizes, sendMessage)
			}
			if len(sizes) == 1 && sizes[0] > sendTogether {
				t.Errorf("record in a message of %d bytes, want at most %d", sizes[0], sendTogether)
			}
			if tt.protocols > maxProtocols { // and more than ten messages hold
				if len(got.protocols) != maxProtocols {
					t.Errorf("%d protocols arrived, want %d", len(got.protocols), maxProtocols)
				}
				want.protocols = want.protocols[:len(got.protocols)]
			}
			if !got.equal(want) {
				t.Errorf("got %q, want %q", got.append(nil), want.append(nil))
			}
			var alone message
			b, err := pb.ReadDelimited(bytes.NewReader(appendAnswer(nil, first, rest, nil)), sendMessage, nil)
			if err == nil {
				err = alone.parse(b)
			}
			if err != nil || len(alone.addrs) == 0 || len(alone.agent) == 0 || tt.protocols > 0 && len(alone.protocols) == 0 {
				t.Errorf("a peer that reads one message gets %q, %v", b, err)
			}
		})
	}
}

func TestObservedTooLong(t *testing.T) {
	m := full(1)
	first, rest := m.frames()
	got, _ := readAll(t, appendAnswer(nil, first, rest, make([]byte, sendObserved)))
	if got.observed != nil {
		t.Errorf("%d bytes of observed address sent", len(got.observed))
	}
}

func TestRead(t *testing.T) {
	repeat := func(n int, msg []byte) (b []byte) {
		for range n {
			b = pb.AppendDelimited(b, msg)
		}
		return b
	}
	field := pb.AppendBytes(nil, 3, "/a")
	var tooLarge *pb.TooLargeError
	for _, tt := range []struct {
		name  string
		bytes []byte
		want  func(error) bool
	}{
		{"nothing", nil, func(err error) bool { return err == io.ErrUnexpectedEOF }},
		{"empty message", []byte{0}, func(err error) bool { return err == nil }},
		{"half a message", []byte{5, 1, 2}, func(err error) bool { return err == io.ErrUnexpectedEOF }},
		{"as large as allowed", repeat(1, pb.AppendBytes(nil, 9, make([]byte, maxMessage-3))), func(err error) bool { return err == nil }},
		{"too large", repeat(1, make([]byte, maxMessage+1)), func(err error) bool { return errors.As(err, &tooLarge) }},
		{"announced only", []byte{0xff, 0xff, 0xff, 0xff, 0x7f}, func(err error) bool { return errors.As(err, &tooLarge) }},
		{"as many as allowed", repeat(maxMessages, field), func(err error) bool { return err == nil }},
		{"too many", repeat(maxMessages+1, field), func(err error) bool { return err == errMessages }},
		{"not protobuf", repeat(1, []byte{0xff}), func(err error) bool { return errors.Is(err, pb.ErrMalformed) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := newScratch().(*scratch).read(bytes.NewReader(tt.bytes))
			if !tt.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestParseBounds(t *testing.T) {
	var b []byte
	for range 2 * maxProtocols {
		b = pb.AppendBytes(b, 3, "/a")
	}
	for range 2 * maxAddrs {
		b = pb.AppendBytes(b, 2, "\x04\x01\x01\x01\x01")
	}
	var m message
	if err := m.parse(b); err != nil || len(m.protocols) != maxProtocols || len(m.addrs) != maxAddrs {
		t.Errorf("got %d protocols, %d addresses, %v; want %d, %d", len(m.protocols), len(m.addrs), err, maxProtocols, maxAddrs)
	}
	m.reset()
	long, longest := strings.Repeat("é", maxText+1), strings.Repeat("é", maxText)
	b = pb.AppendBytes(pb.AppendBytes(pb.AppendBytes(nil, 3, long), 3, ""), 3, longest)
	if err := m.parse(b); err != nil || len(m.protocols) != 1 || string(m.protocols[0]) != longest {
		t.Errorf("got %q, %v; want %q alone", m.protocols, err, longest)
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"go-libp2p/0.51", "go-libp2p/0.51"},
		{"a\xffb", "a\uFFFDb"},
		{strings.Repeat("é", maxText), strings.Repeat("é", maxText)},
		{strings.Repeat("é", maxText+5), strings.Repeat("é", maxText)},
	} {
		if got := string(text([]byte(tt.in))); got != tt.want {
			t.Errorf("text(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzMessage(f *testing.F) {
	m := full(3)
	f.Add(m.append(nil))
	f.Add([]byte{0x2a, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		if m.parse(b) != nil {
			return
		}
		var again message
		if err := again.parse(m.append(nil)); err != nil || !again.equal(m) {
			t.Errorf("%q reads as %q, then as %q, %v", b, m.append(nil), again.append(nil), err)
		}
		first, rest := m.frames()
		sc := newScratch().(*scratch)
		if err := sc.read(bytes.NewReader(appendAnswer(nil, first, rest, nil))); err != nil {
			// Peers send more than we do: addresses of more than a message.
			var tooLarge *pb.TooLargeError
			if !errors.As(err, &tooLarge) {
				t.Error(err)
			}
		}
		parseAddrs(m.addrs)
		text(m.agent)
	})
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x05\x1a\x03/id\x04\x1a\x02/b\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sc := newScratch().(*scratch)
		sc.read(bytes.NewReader(b))
		if len(sc.b) > maxMessages*maxMessage {
			t.Errorf("%d bytes held", len(sc.b))
		}
	})
}

// Reading what peers send of themselves takes what it keeps; writing it is done once for
// each change.
const (
	parseAllocs  = 0 // into a message that has been used
	framesAllocs = 12
)

func BenchmarkParse(b *testing.B) {
	f, _ := codec(b)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

func BenchmarkFrames(b *testing.B) {
	_, f := codec(b)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

func TestCodecAllocs(t *testing.T) {
	parse, frames := codec(t)
	if n := testing.AllocsPerRun(100, parse); n > parseAllocs {
		t.Errorf("parse: %v allocations, at most %v", n, parseAllocs)
	}
	if n := testing.AllocsPerRun(100, frames); n > framesAllocs {
		t.Errorf("frames: %v allocations, at most %v", n, framesAllocs)
	}
}

// codec returns functions that parse and encode a message of 40 protocols, as Kubo's.
func codec(tb testing.TB) (parse, frames func()) {
	m := full(40)
	enc := m.append(nil)
	var back message
	return func() {
			back.reset()
			if err := back.parse(enc); err != nil {
				tb.Fatal(err)
			}
		}, func() {
			m.frames()
		}
}

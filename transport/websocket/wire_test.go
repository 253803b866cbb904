package websocket

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

var testKey = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// https://www.rfc-editor.org/rfc/rfc6455#section-5.7
func TestVectors(t *testing.T) {
	for _, c := range []struct {
		frame  string
		masked bool
		op     byte
		p      string
	}{
		{"82 05 48 65 6c 6c 6f", false, opBinary, "Hello"}, // the RFC has text
		{"82 85 37 fa 21 3d 7f 9f 4d 51 58", true, opBinary, "Hello"},
		{"89 05 48 65 6c 6c 6f", false, opPing, "Hello"},
		{"8a 85 37 fa 21 3d 7f 9f 4d 51 58", true, opPong, "Hello"},
		{"82 7E 01 00" + strings.Repeat(" 00", 256), false, opBinary, string(make([]byte, 256))},
		{"82 7F 00 00 00 00 00 01 00 00" + strings.Repeat(" 00", 65536), false, opBinary, string(make([]byte, 65536))},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(c.frame, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		key := &testKey
		if !c.masked {
			key = nil
		}
		if got := appendFrame(nil, c.op, []byte(c.p), key); !bytes.Equal(got, want) {
			t.Errorf("%.40s: appended % x", c.frame, got[:min(len(got), 14)])
		}
		d := decoder{masked: c.masked}
		n, err := d.decode(want)
		switch {
		case err != nil || d.n != 0 || d.pinged != (c.op == opPing):
			t.Errorf("%.40s: %d, %v", c.frame, n, err)
		case c.op == opPing && string(d.ping) != c.p, c.op == opBinary && string(want[:n]) != c.p:
			t.Errorf("%.40s: wrong payload", c.frame)
		}
	}
}

func TestMask(t *testing.T) {
	for size := range 300 {
		for _, n := range []int{size, 1000 + size, 5000 + size} {
			src := make([]byte, n)
			for i := range src {
				src[i] = byte(i * 7)
			}
			dst := make([]byte, n)
			key := mask(dst, src, testKey)
			for i := range dst {
				if dst[i] != src[i]^testKey[i%4] {
					t.Fatalf("%d bytes: wrong at %d", n, i)
				}
			}
			if key != turn(testKey, n) {
				t.Fatalf("%d bytes: the key is %x", n, key)
			}
		}
	}
}

// bad are frames to a server that break the rules, each after a good one.
var bad = map[string]string{
	"not masked":                  "\x82\x01x",
	"reserved bit":                "\xc2\x80\x00\x00\x00\x00",
	"reserved opcode":             "\x83\x80\x00\x00\x00\x00",
	"reserved control opcode":     "\x8b\x80\x00\x00\x00\x00",
	"text":                        "\x81\x80\x00\x00\x00\x00",
	"length with the top bit":     "\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	"long ping":                   "\x89\xfe\x00\x7e\x00\x00\x00\x00",
	"ping in parts":               "\x09\x80\x00\x00\x00\x00",
	"continuation of nothing":     "\x80\x80\x00\x00\x00\x00",
	"message within a message":    "\x02\x80\x00\x00\x00\x00\x82\x80\x00\x00\x00\x00",
	"continuation after the last": "\x02\x80\x00\x00\x00\x00\x80\x80\x00\x00\x00\x00\x80\x80\x00\x00\x00\x00",
}

func TestViolations(t *testing.T) {
	for name, frame := range bad {
		b := append(appendFrame(nil, opBinary, []byte("data"), &testKey), frame...)
		d := decoder{masked: true}
		n, err := d.decode(b)
		if string(b[:n]) != "data" || !errors.Is(err, ErrProtocol) || (name == "text") != errors.Is(err, errText) {
			t.Errorf("%s: %q, %v", name, b[:n], err)
		}
	}
	d := decoder{}
	if _, err := d.decode([]byte("\x82\x81\x00\x00\x00\x00x")); !errors.Is(err, ErrProtocol) {
		t.Errorf("masked frame to a client: %v", err)
	}
}

// FuzzDecode feeds frames whole and in pieces. Both must be the same, and what
// decode takes must be what a plain reading of the RFC takes.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x82\x05Hello\x89\x01x\x02\x01a\x80\x01b\x88\x02\x03\xe8after"), false, uint64(1))
	f.Add(appendFrame(appendFrame(nil, opBinary, make([]byte, 300), &testKey), opPing, make([]byte, 125), &testKey), true, uint64(2))
	f.Add(appendFrame(nil, opBinary, make([]byte, 70000), &testKey), true, uint64(3))
	for _, frame := range bad {
		f.Add([]byte(frame), true, uint64(4))
	}
	f.Fuzz(func(t *testing.T, in []byte, masked bool, seed uint64) {
		whole := decoder{masked: masked}
		b := bytes.Clone(in)
		n, err := whole.decode(b)
		want, wantPing, wantErr := reference(in, masked)
		if !bytes.Equal(b[:n], want) || (err != nil) != wantErr || !bytes.Equal(whole.ping, wantPing) {
			t.Fatalf("got %d bytes, %v; want %d, %v", n, err, len(want), wantErr)
		}
		parts := decoder{masked: masked}
		r := rand.New(rand.NewPCG(seed, 0))
		var got []byte
		var err2 error
		for rest := bytes.Clone(in); len(rest) > 0 && err2 == nil; {
			k := min(len(rest), 1+r.IntN(1+r.IntN(200)))
			var n int
			n, err2 = parts.decode(rest[:k])
			got = append(got, rest[:n]...)
			rest = rest[k:]
		}
		if !bytes.Equal(got, want) || fmt.Sprint(err) != fmt.Sprint(err2) || whole.closed != parts.closed || err == nil && !parts.closed && whole.within() != parts.within() {
			t.Fatalf("in pieces: %d bytes, %v; whole: %d, %v", len(got), err2, len(want), err)
		}
	})
}

// reference reads frames in the simplest way there is. A frame that is not whole counts
// as far as it goes.
func reference(in []byte, masked bool) (data, ping []byte, bad bool) {
	open := false
	for len(in) >= 2 {
		op, last, isMasked, size, head := in[0]&15, in[0]>>7 == 1, in[1]>>7 == 1, uint64(in[1]&127), 2
		if size >= 126 {
			k := map[uint64]int{126: 2, 127: 8}[size]
			if len(in) < head+k {
				return data, ping, false
			}
			size = 0
			for _, x := range in[head : head+k] {
				size = size<<8 | uint64(x)
			}
			head += k
		}
		var key [4]byte
		if isMasked {
			if len(in) < head+4 {
				return data, ping, false
			}
			key = [4]byte(in[head:])
			head += 4
		}
		control := op >= 8
		if in[0]&0x70 != 0 || isMasked != masked || size >= 1<<63 || op == 1 || op > 2 && op < 8 || op > 10 ||
			control && (!last || size > 125) || op == 2 && open || op == 0 && !open {
			return data, ping, true
		}
		p := in[head:min(uint64(len(in)), uint64(head)+size)]
		in = in[head+len(p):]
		var plain []byte
		for i, x := range p {
			plain = append(plain, x^key[i%4])
		}
		if !control {
			open = !last
			data = append(data, plain...)
		}
		if uint64(len(p)) < size {
			return data, ping, false
		}
		switch op {
		case 9:
			ping = plain
		case 8:
			return data, ping, false
		}
	}
	return data, ping, false
}

func BenchmarkMask(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				mask(p, p, testKey)
			}
		})
	}
}

package pb

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAppend(t *testing.T) {
	// The first two are the examples of the encoding guide: 150 in field 1,
	// "testing" in field 2.
	// https://protobuf.dev/programming-guides/encoding/
	for _, tt := range []struct {
		name, want string
		got        []byte
	}{
		{"uvarint", "089601", AppendUvarint(nil, 1, 150)},
		{"string", "120774657374696e67", AppendBytes(nil, 2, "testing")},
		{"bytes", "120774657374696e67", AppendBytes(nil, 2, []byte("testing"))},
		{"zero", "0800", AppendUvarint(nil, 1, 0)},
		{"empty", "1200", AppendBytes(nil, 2, "")},
		{"true", "1801", AppendBool(nil, 3, true)},
		{"false", "1800", AppendBool(nil, 3, false)},
		{"large field number", "807d00", AppendUvarint(nil, 2000, 0)},
		{"largest", "08ffffffffffffffffff01", AppendUvarint(nil, 1, 1<<64-1)},
		{"delimited", "026869", AppendDelimited(nil, "hi")},
	} {
		if got := hex.EncodeToString(tt.got); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestBeginEnd(t *testing.T) {
	// Sizes on both sides of where the length takes another byte.
	for _, n := range []int{0, 1, 127, 128, 129, 16383, 16384, 1 << 21} {
		body := bytes.Repeat([]byte{0xab}, n)
		b := []byte("before")
		b, outer := Begin(b, 3)
		b, inner := Begin(b, 1)
		b = append(b, body...)
		b = End(b, inner)
		b = AppendUvarint(b, 2, 7)
		b = End(b, outer)
		b = append(b, "after"...)

		want := AppendBytes([]byte("before"), 3, AppendUvarint(AppendBytes(nil, 1, body), 2, 7))
		want = append(want, "after"...)
		if !bytes.Equal(b, want) {
			t.Errorf("nested message of %d bytes differs from the one made in a second buffer", n)
		}

		b, at := BeginDelimited(nil)
		b = End(append(b, body...), at)
		if !bytes.Equal(b, AppendDelimited(nil, body)) {
			t.Errorf("delimited message of %d bytes differs", n)
		}
	}
}

// message is one of everything that a Decoder reads.
type message struct {
	n    uint64
	data []byte
	text string
	flag bool
	list []string
}

func (m *message) append(b []byte) []byte {
	b = AppendUvarint(b, 1, m.n)
	b = AppendBytes(b, 2, m.data)
	b = AppendBytes(b, 3, m.text)
	b = AppendBool(b, 4, m.flag)
	for _, s := range m.list {
		b = AppendBytes(b, 5, s)
	}
	return b
}

func (m *message) parse(b []byte) error {
	d := Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			m.n = d.Uvarint()
		case 2:
			m.data = d.Bytes()
		case 3:
			m.text = d.Text()
		case 4:
			m.flag = d.Bool()
		case 5:
			m.list = append(m.list, d.Text())
		}
	}
	return d.Err()
}

func TestDecoder(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     message
	}{
		{"empty", "", message{}},
		{"all", "08960112026869" + "1a026f6b" + "2001" + "2a0161" + "2a00", message{150, []byte("hi"), "ok", true, []string{"a", ""}}},
		{"any order, last wins", "1a0178" + "0801" + "1a0179" + "0802", message{n: 2, text: "y"}},
		{"unknown fields of every type", "f80601" + "fa06026869" + "fd0601020304" + "f9060102030405060708" + "0803", message{n: 3}},
		{"a varint need not be minimal", "088300", message{n: 3}},
		{"a string need not be UTF-8", "1a02ff00", message{text: "\xff\x00"}},
		{"a bool of 2 is true", "2002", message{flag: true}},
	} {
		var got message
		if err := got.parse(unhex(t, tt.in)); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestDecoderMalformed(t *testing.T) {
	for _, tt := range []struct{ name, in string }{
		{"tag cut off", "88"},
		{"field number 0", "0000"},
		{"field number too large", "f8ffffffff0100"},
		{"no value", "08"},
		{"varint cut off", "0896"},
		{"varint of eleven bytes", "08ffffffffffffffffffff01"},
		{"varint beyond 64 bits", "08ffffffffffffffffff02"},
		{"length beyond the end", "12036869"},
		{"length of 2^63", "1280808080808080808001"},
		{"fixed32 cut off", "fd06010203"},
		{"fixed64 cut off", "f90601020304050607"},
		{"group", "0b0c"},
		{"end of a group", "0c"},
		{"unknown group", "fb06fc06"},
		{"wire type 6", "0e"},
		{"wire type 7", "0f"},
		{"a number where bytes are known", "1001"},
		{"bytes where a number is known", "0a0101"},
		{"fixed32 where a number is known", "0d01020304"},
		{"malformed after well-formed", "080112"},
	} {
		var m message
		if err := m.parse(unhex(t, tt.in)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", tt.name, err)
		}
	}
}

func TestDecoderEndsAtError(t *testing.T) {
	d := Decode(unhex(t, "1001"+"0801"))
	if !d.Next() || d.Field() != 2 {
		t.Fatal("no field 2")
	}
	if b := d.Bytes(); b != nil || d.Err() == nil {
		t.Errorf("got %x, %v of a number", b, d.Err())
	}
	if d.Uvarint() != 0 || d.Next() {
		t.Error("the walk goes on after an error")
	}
}

func TestDecoderClipsBytes(t *testing.T) {
	in := AppendUvarint(AppendBytes(nil, 2, "hi"), 1, 7)
	d := Decode(in)
	d.Next()
	_ = append(d.Bytes(), 0xff)
	if !d.Next() || d.Uvarint() != 7 {
		t.Error("appending to a field changed the next one")
	}
}

func TestAllocs(t *testing.T) {
	m := message{n: 150, data: []byte("hi"), text: "", flag: true}
	enc := m.append(nil)
	buf := make([]byte, 0, 128)
	if n := testing.AllocsPerRun(100, func() {
		b, at := Begin(buf, 1)
		b = m.append(b)
		End(b, at)
	}); n != 0 {
		t.Errorf("appending: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		var got message
		if got.parse(enc) != nil || got.n != 150 {
			t.Error("parse")
		}
	}); n != 0 {
		t.Errorf("parsing: %v allocations", n)
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add((&message{150, []byte("hi"), "ok", true, []string{"a", ""}}).append(nil))
	f.Add([]byte("\x0b\x0c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		if err := m.parse(b); err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v is not ErrMalformed", err)
			}
			return
		}
		// Parse(Append(x)) == x, and appending again changes nothing.
		enc := m.append(nil)
		var again message
		if err := again.parse(enc); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.append(nil), enc) {
			t.Errorf("%x became %x", enc, again.append(nil))
		}
	})
}

func BenchmarkParse(b *testing.B) {
	m := message{n: 150, data: make([]byte, 64), flag: true}
	enc := m.append(nil)
	b.ReportAllocs()
	for b.Loop() {
		var got message
		if err := got.parse(enc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	m := message{n: 150, data: make([]byte, 64), flag: true}
	buf := make([]byte, 0, 128)
	b.ReportAllocs()
	for b.Loop() {
		m.append(buf)
	}
}

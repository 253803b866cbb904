package pb

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// plain hides every method of a reader but Read.
type plain struct{ io.Reader }

func TestReadDelimited(t *testing.T) {
	const limit = 64 << 10
	for _, n := range []int{0, 1, 63, 64, 65, 127, 128, chunk - 1, chunk, chunk + 1, 3*chunk + 7, limit} {
		msg := bytes.Repeat([]byte{0xab}, n)
		in := append(AppendDelimited(nil, msg), "of somebody else"...)
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"ByteReader":     func(r io.Reader) io.Reader { return r },
			"plain":          func(r io.Reader) io.Reader { return plain{r} },
			"bufio":          func(r io.Reader) io.Reader { return bufio.NewReader(r) },
			"byte by byte":   iotest.OneByteReader,
			"EOF with bytes": iotest.DataErrReader,
		} {
			for bufName, buf := range map[string][]byte{"nil": nil, "small": make([]byte, 3), "large": make([]byte, 0, limit)} {
				r := wrap(bytes.NewReader(in))
				got, err := ReadDelimited(r, limit, buf)
				if err != nil || !bytes.Equal(got, msg) {
					t.Fatalf("%d bytes, reader %s, buffer %s: got %d bytes, %v", n, name, bufName, len(got), err)
				}
				if n <= cap(buf) && n > 0 && &got[0] != &buf[:1][0] {
					t.Errorf("%d bytes, reader %s, buffer %s: not read into the buffer", n, name, bufName)
				}
				rest, err := io.ReadAll(r)
				if err != nil || string(rest) != "of somebody else" {
					t.Errorf("%d bytes, reader %s, buffer %s: what follows is %q, %v", n, name, bufName, rest, err)
				}
			}
		}
	}
}

func TestReadDelimitedErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		in   io.Reader
		want error
	}{
		{"nothing", strings.NewReader(""), io.EOF},
		{"within the length", strings.NewReader("\x80"), io.ErrUnexpectedEOF},
		{"no message", strings.NewReader("\x01"), io.ErrUnexpectedEOF},
		{"within the message", strings.NewReader("\x03ab"), io.ErrUnexpectedEOF},
		{"reader fails", iotest.ErrReader(broken), broken},
		{"reader fails within", io.MultiReader(strings.NewReader("\x03ab"), iotest.ErrReader(broken)), broken},
		{"length is not minimal", strings.NewReader("\x81\x00a"), ErrMalformed},
		{"zero is not minimal", strings.NewReader("\x80\x00"), ErrMalformed},
		{"length of ten bytes", strings.NewReader("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), ErrMalformed},
	} {
		for _, r := range []io.Reader{tt.in, plain{tt.in}} {
			if s, ok := tt.in.(*strings.Reader); ok {
				s.Seek(0, io.SeekStart)
			} else if r != tt.in {
				continue // cannot be read twice
			}
			if got, err := ReadDelimited(r, 100, nil); !errors.Is(err, tt.want) || got != nil {
				t.Errorf("%s: got %q, %v, want %v", tt.name, got, err, tt.want)
			}
		}
	}
}

func TestReadDelimitedTooLarge(t *testing.T) {
	for _, size := range []uint64{11, 128, 1 << 40, 1<<63 - 1} {
		b := AppendUvarint(nil, 1, size)[1:]
		r := bytes.NewReader(append(b, "0123456789ab"...))
		_, err := ReadDelimited(r, 10, nil)
		var large *TooLargeError
		if !errors.As(err, &large) || large.Size != size || large.Max != 10 {
			t.Errorf("%d bytes: got %v, want a TooLargeError", size, err)
		}
		if r.Len() != 12 {
			t.Errorf("%d bytes: %d bytes of the message were read", size, 12-r.Len())
		}
	}
	if _, err := ReadDelimited(strings.NewReader("\x0a0123456789"), 10, nil); err != nil {
		t.Errorf("as large as allowed: %v", err)
	}
	if _, err := ReadDelimited(strings.NewReader("\x00"), -1, nil); err == nil {
		t.Error("a negative limit takes a message")
	}
}

// asked notes how much a reader is asked for beyond twice of what it has given.
type asked struct {
	io.Reader
	came, ahead int
}

func (r *asked) Read(p []byte) (int, error) {
	r.ahead = max(r.ahead, len(p)-2*r.came)
	n, err := r.Reader.Read(p)
	r.came += n
	return n, err
}

// A sender that announces 1 GiB gets memory for what it sends, not for that.
func TestReadDelimitedTrust(t *testing.T) {
	in := append(AppendUvarint(nil, 1, 1<<30)[1:], make([]byte, 1<<20)...)
	r := &asked{Reader: bytes.NewReader(in)}
	if _, err := ReadDelimited(r, 1<<30, nil); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if r.ahead > chunk {
		t.Errorf("asked for %d bytes more than twice of what came", r.ahead)
	}
}

func TestReadDelimitedAllocs(t *testing.T) {
	in := AppendDelimited(nil, make([]byte, 200))
	buf := make([]byte, 256)
	r := bytes.NewReader(in)
	for name, r := range map[string]io.ReadSeeker{"ByteReader": r, "plain": plainSeeker{r}} {
		if n := testing.AllocsPerRun(100, func() {
			r.Seek(0, io.SeekStart)
			if _, err := ReadDelimited(r, 256, buf); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations with a buffer", name, n)
		}
	}
}

type plainSeeker struct{ io.ReadSeeker }

func FuzzReadDelimited(f *testing.F) {
	f.Add([]byte("\x03abcdef"))
	f.Add([]byte("\x80\x01"))
	f.Add([]byte("\x81\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 20
		r := bytes.NewReader(b)
		msg, err := ReadDelimited(r, limit, nil)
		if err != nil {
			return
		}
		if len(msg) > limit {
			t.Fatalf("%d bytes, beyond the limit", len(msg))
		}
		used := b[:len(b)-r.Len()]
		if !bytes.Equal(AppendDelimited(nil, msg), used) {
			t.Errorf("read %x of %x", msg, used)
		}
	})
}

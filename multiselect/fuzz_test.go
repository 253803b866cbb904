package multiselect

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

var seeds = []string{
	"", header, header + na, header + ls, header + mEcho, header + mEcho + "data",
	header + na + mEcho, header + "\x03/a\n" + mEcho + "data", header + "\x12\x0c/echo/1.0.0\n\x03/x\n\n",
	header + "\x80\x00", header + "\xff\xff\xff", "\x13/multistream/2.0.0\n",
}

// A chopper gives n bytes at a time.
type chopper struct {
	r *strings.Reader
	n int
	bytes.Buffer
}

func (c *chopper) Read(b []byte) (int, error)  { return c.r.Read(b[:min(len(b), c.n)]) }
func (c *chopper) Write(b []byte) (int, error) { return c.Buffer.Write(b) }

// However the bytes come in pieces, a responder accepts the same, and leaves the
// same bytes unread; and it agrees with an initiator that reads its answer.
func FuzzAccept(f *testing.F) {
	for _, s := range seeds {
		f.Add(s, byte(1))
	}
	f.Fuzz(func(t *testing.T, in string, n byte) {
		accept := func(n int) (string, string, string, error) {
			c := &chopper{r: strings.NewReader(in), n: n}
			id, err := Accept(c, Only(echo))
			rest, _ := io.ReadAll(c)
			return id, string(rest), c.String(), err
		}
		id, rest, out, err := accept(len(in) + 1)
		id2, rest2, out2, err2 := accept(max(1, int(n)))
		if id != id2 || rest != rest2 || out != out2 || (err == nil) != (err2 == nil) {
			t.Fatalf("%q %q %q %v in one piece, %q %q %q %v in pieces of %d", id, rest, out, err, id2, rest2, out2, err2, n)
		}
		if err == nil {
			if id != echo || !strings.HasSuffix(in, rest) || !strings.HasSuffix(in[:len(in)-len(rest)], mEcho) || !strings.HasSuffix(out, mEcho) {
				t.Fatalf("accepted %q, left %q, answered %q", id, rest, out)
			}
		}
		if len(out) > 64*maxProposals+1024 {
			t.Fatalf("answered %d bytes", len(out))
		}
	})
}

// However the bytes come, Select and a lazy Conn take the same answers for yes.
func FuzzAnswer(f *testing.F) {
	for _, s := range seeds {
		f.Add(s, echo, byte(1))
		f.Add(s, "/a", byte(3))
		f.Add(s, "x", byte(20))
	}
	f.Fuzz(func(t *testing.T, in, id string, n byte) {
		if check(id) != nil {
			return
		}
		yes := strings.HasPrefix(in, header+string(appendMessage(nil, false, id)))
		c := &chopper{r: strings.NewReader(in), n: max(1, int(n))}
		if _, err := Select(c, id); (err == nil) != yes {
			t.Fatalf("select: %v", err)
		}
		a, b := newPipe()
		b.Write([]byte(in))
		b.CloseWrite()
		l := lazy(a, id)
		got, err := io.ReadAll(l)
		if (err == nil) != yes || yes && string(got) != in[len(in)-c.r.Len():] {
			t.Fatalf("lazy: %q, %v", got, err)
		}
	})
}

func FuzzList(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		ids, err := List(&chopper{r: strings.NewReader(in), n: 1000})
		if err != nil {
			return
		}
		again, err := List(&chopper{r: strings.NewReader(header + string(appendList(nil, ids))), n: 7})
		if err != nil || strings.Join(ids, "\n") != strings.Join(again, "\n") {
			t.Fatalf("%q became %q, %v", ids, again, err)
		}
	})
}

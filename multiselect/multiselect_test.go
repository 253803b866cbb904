package multiselect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

const (
	echo  = "/echo/1.0.0"
	mEcho = "\x0c/echo/1.0.0\n"
)

var long = "/" + strings.Repeat("x", maxToken-2) // the longest ID

func write(t *testing.T, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatalf("write %q: %v", s, err)
	}
}

// expect reads exactly want.
func expect(t *testing.T, c io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	n, err := io.ReadFull(c, b)
	if string(b[:n]) != want {
		t.Fatalf("read %q, %v, want %q", b[:n], err, want)
	}
}

func expectEOF(t *testing.T, c io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
		t.Fatalf("read %q, %v, want EOF", b, err)
	}
}

func lazy(nc net.Conn, id string) *Conn {
	c := new(Conn)
	c.Lazy(nc, id)
	return c
}

// accepted accepts what is on its way already.
func accepted(t *testing.T, nc net.Conn) *Conn {
	t.Helper()
	c := new(Conn)
	if err := c.Accept(nc, Only(echo, long)); err != nil {
		t.Fatal(err)
	}
	return c
}

// What the initiator sends, and in how many writes.
func TestProposal(t *testing.T) {
	tests := []struct {
		name   string
		do     func(c *Conn)
		want   string
		writes int
	}{
		{"nothing", func(c *Conn) {}, "", 0},
		{"write", func(c *Conn) { c.Write([]byte("hi")) }, header + mEcho + "hi", 1},
		{"two writes", func(c *Conn) { c.Write([]byte("h")); c.Write([]byte("i")) }, header + mEcho + "hi", 2},
		{"empty write", func(c *Conn) { c.Write(nil) }, header + mEcho, 1},
		{"flush", func(c *Conn) { c.Flush(); c.Flush() }, header + mEcho, 1},
		{"close for writing", func(c *Conn) { c.CloseWrite() }, header + mEcho, 1},
		{"close", func(c *Conn) { c.Close() }, header + mEcho, 1},
		{"read", func(c *Conn) { c.SetReadDeadline(past); c.Read(make([]byte, 1)) }, header + mEcho, 1},
		{"handshake", func(c *Conn) { c.SetReadDeadline(past); c.Handshake() }, header + mEcho, 1},
		{"long write", func(c *Conn) { c.Write(make([]byte, 1<<20)) }, header + mEcho + string(make([]byte, 1<<20)), 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, _ := newPipe()
			tt.do(lazy(a, echo))
			if got := a.sent(); got != tt.want || a.writes() != tt.writes {
				t.Errorf("got %.80q in %d writes, want %.80q in %d", got, a.writes(), tt.want, tt.writes)
			}
		})
	}
}

// What the responder sends, and in how many writes.
func TestAnswer(t *testing.T) {
	ask := func(s string) func(a *pipe) { return func(a *pipe) { io.WriteString(a, s) } }
	var deaf Protocols
	deaf.Match = Only(echo).Match
	tests := []struct {
		name   string
		in     string
		p      Protocols
		do     func(c *Conn)
		want   string
		writes int
	}{
		{"nothing yet", header + mEcho, Only(echo), func(c *Conn) {}, "", 0},
		{"write", header + mEcho, Only(echo), func(c *Conn) { c.Write([]byte("hi")) }, header + mEcho + "hi", 1},
		{"flush", header + mEcho, Only(echo), func(c *Conn) { c.Flush() }, header + mEcho, 1},
		{"handshake", header + mEcho, Only(echo), func(c *Conn) { c.Handshake() }, header + mEcho, 1},
		{"close for writing", header + mEcho, Only(echo), func(c *Conn) { c.CloseWrite() }, header + mEcho, 1},
		{"close", header + mEcho, Only(echo), func(c *Conn) { c.Close() }, header + mEcho, 1},
		{"read what is there", header + mEcho + "x", Only(echo), func(c *Conn) { c.Read(make([]byte, 9)) }, "", 0},
		{"read that would block", header + mEcho, Only(echo), func(c *Conn) { c.SetReadDeadline(past); c.Read(make([]byte, 9)) }, header + mEcho, 1},
		{"list", header + ls + mEcho, Only(echo, "/x"), func(c *Conn) { c.Flush() }, header + "\x12\x0c/echo/1.0.0\n\x03/x\n\n" + mEcho, 2},
		{"list of nothing", header + ls + mEcho, Protocols{deaf.Match, func() []string { return nil }}, func(c *Conn) { c.Flush() }, header + "\x01\n" + mEcho, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := newPipe()
			ask(tt.in)(a)
			c := new(Conn)
			if err := c.Accept(b, tt.p); err != nil {
				t.Fatal(err)
			}
			tt.do(c)
			if got := b.sent(); got != tt.want || b.writes() != tt.writes {
				t.Errorf("got %q in %d writes, want %q in %d", got, b.writes(), tt.want, tt.writes)
			}
		})
	}
}

// Each way to propose meets each way to accept, over each kind of connection.
func TestMatrix(t *testing.T) {
	initiators := []struct {
		name string
		open func(c net.Conn) (io.ReadWriter, error)
	}{
		{"select", func(c net.Conn) (io.ReadWriter, error) {
			id, err := Select(c, echo)
			if err == nil && id != echo {
				err = errors.New(id)
			}
			return c, err
		}},
		{"select the third", func(c net.Conn) (io.ReadWriter, error) {
			m := new(Conn)
			err := m.Select(c, "/a", "/bb/1.0.0", echo, "/c")
			if err == nil && m.Protocol() != echo {
				err = errors.New(m.Protocol())
			}
			return m, err
		}},
		{"select a long one", func(c net.Conn) (io.ReadWriter, error) {
			_, err := Select(c, "x", long)
			return c, err
		}},
		{"lazy", func(c net.Conn) (io.ReadWriter, error) { return lazy(c, echo), nil }},
		{"lazy long", func(c net.Conn) (io.ReadWriter, error) { return lazy(c, long), nil }},
		{"lazy handshake", func(c net.Conn) (io.ReadWriter, error) {
			m := lazy(c, echo)
			return m, m.Handshake()
		}},
		// "Both sides may send the initial multistream protocol id
		// simultaneously, without waiting to receive data from the other side."
		// https://github.com/libp2p/specs/blob/master/connections/README.md#multistream-select
		{"patient", func(c net.Conn) (io.ReadWriter, error) {
			io.WriteString(c, header)
			if err := readHeader(c, make([]byte, 99)); err != nil {
				return nil, err
			}
			io.WriteString(c, mEcho)
			_, err := readToken(c, make([]byte, 99))
			return c, err
		}},
	}
	responders := []struct {
		name   string
		accept func(c net.Conn) (io.ReadWriter, error)
	}{
		{"accept", func(c net.Conn) (io.ReadWriter, error) {
			_, err := Accept(c, Only(echo, long))
			return c, err
		}},
		{"conn", func(c net.Conn) (io.ReadWriter, error) {
			m := new(Conn)
			return m, m.Accept(c, Only(echo, long))
		}},
	}
	kinds := []struct {
		name string
		wrap func(*pipe) net.Conn
	}{
		{"ready", func(p *pipe) net.Conn { return p }},
		{"bare", func(p *pipe) net.Conn { return bare{p} }},
		{"trickle", func(p *pipe) net.Conn { return trickle{p} }},
		{"bare trickle", func(p *pipe) net.Conn { return bare{trickle{p}} }},
	}
	for _, i := range initiators {
		for _, r := range responders {
			for _, k := range kinds {
				for _, readerFirst := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s/%s/%t", i.name, r.name, k.name, readerFirst), func(t *testing.T) {
						a, b := newPipe()
						// One end says hello, the other answers, and both close.
						hello := func(rw io.ReadWriter, c *pipe) error {
							if _, err := io.WriteString(rw, "hello"); err != nil {
								return err
							}
							c.CloseWrite()
							if got, err := io.ReadAll(rw); string(got) != "olleh" || err != nil {
								return fmt.Errorf("read %q, %w", got, err)
							}
							return nil
						}
						olleh := func(rw io.ReadWriter, c *pipe) error {
							if got, err := io.ReadAll(rw); string(got) != "hello" || err != nil {
								return fmt.Errorf("read %q, %w", got, err)
							}
							_, err := io.WriteString(rw, "olleh")
							c.CloseWrite()
							return err
						}
						if readerFirst {
							hello, olleh = olleh, hello
						}
						done := make(chan error, 1)
						go func() {
							rw, err := r.accept(k.wrap(b))
							if err == nil {
								err = olleh(rw, b)
							}
							done <- err
						}()
						rw, err := i.open(k.wrap(a))
						if err == nil {
							err = hello(rw, a)
						}
						if err != nil {
							t.Error("initiator:", err)
							a.reset(io.ErrClosedPipe)
						}
						if err := <-done; err != nil {
							t.Error("responder:", err)
						}
					})
				}
			}
		}
	}
}

// A lazy stream costs one write and two or three reads at either end.
func TestFewCalls(t *testing.T) {
	a, b := newPipe()
	c := lazy(a, echo)
	write(t, c, "ping")
	s := accepted(t, b)
	expect(t, s, "ping")
	write(t, s, "pong")
	expect(t, c, "pong")
	for name, h := range map[string]*half{"initiator": a.out, "responder": b.out} {
		if h.writes != 1 || h.reads != 4 && name == "initiator" || h.reads != 3 && name == "responder" {
			t.Errorf("%s: %d writes, that the other end read in %d", name, h.writes, h.reads)
		}
	}
}

// plain is a connection that cannot tell what it has received, as a socket.
type plain struct{ net.Conn }

// On a connection whose reads are system calls, a pipelining initiator and its
// responder make one write and one read each, and nothing behind the negotiation is lost.
func TestReadAhead(t *testing.T) {
	a, b := newPipe()
	c, s := lazy(plain{a}, echo), new(Conn)
	write(t, c, "ping")
	if err := s.Accept(plain{b}, Only(echo)); err != nil {
		t.Fatal(err)
	}
	if h := b.out; h.writes != 0 {
		t.Error("the answer did not wait for company")
	}
	for _, ch := range "ping" { // in small Reads, of what is left
		expect(t, s, string(ch))
	}
	write(t, s, "pong")
	expect(t, c, "po")
	expect(t, c, "ng")
	for name, h := range map[string]*half{"initiator": a.out, "responder": b.out} {
		if h.writes != 1 || h.reads != 1 {
			t.Errorf("%s: %d writes, that the other end read in %d", name, h.writes, h.reads)
		}
	}
	write(t, c, "again")
	expect(t, s, "again")
	write(t, s, "and again")
	expect(t, c, "and again")
}

// Whatever the responder says but yes fails reads, and later writes.
func TestRefused(t *testing.T) {
	tests := []struct {
		name   string
		answer string
		err    error
	}{
		{"na", header + na, ErrNotSupported},
		{"na and more", header + na + mEcho, ErrNotSupported},
		{"no header", mEcho, ErrMalformed},
		{"another header", "\x13/multistream/2.0.0\n", ErrMalformed},
		{"another protocol", header + "\x0c/echo/2.0.0\n", ErrMalformed},
		{"a longer one", header + "\x0d/echo/1.0.0x\n", ErrMalformed},
		{"list", header + ls, ErrMalformed},
		{"no newline", header + "\x0c/echo/1.0.0x", ErrMalformed},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", ErrMalformed},
	}
	for _, tt := range tests {
		for _, step := range []int{1, 1000} {
			t.Run(fmt.Sprint(tt.name, step), func(t *testing.T) {
				a, b := newPipe()
				c := lazy(a, echo)
				write(t, c, "request")
				write(t, b, tt.answer)
				if step == 1 {
					c.Conn = trickle{a}
				}
				n, err := c.Read(make([]byte, 9))
				e, ok := errors.AsType[*NegotiationError](err)
				if n != 0 || !ok || !errors.Is(err, tt.err) || !reflect.DeepEqual(e.Protocols, []string{echo}) {
					t.Fatalf("read %d, %#v", n, err)
				}
				if !strings.Contains(err.Error(), echo) {
					t.Errorf("the error %q does not name the protocol", err)
				}
				for i := range 2 {
					if _, err2 := c.Read(make([]byte, 9)); err2 != err {
						t.Errorf("read %d: %v", i, err2)
					}
					if _, err2 := c.Write([]byte("x")); err2 != err {
						t.Errorf("write %d: %v", i, err2)
					}
				}
				if err2 := c.Handshake(); err2 != err {
					t.Error("handshake:", err2)
				}
				if got := a.sent(); got != header+mEcho+"request" {
					t.Errorf("sent %q", got)
				}

				a, b = newPipe()
				write(t, b, tt.answer)
				if _, err := Select(a, echo); !errors.As(err, &e) || !errors.Is(err, tt.err) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Error("select:", err)
				}
			})
		}
	}
}

func TestSelectRefused(t *testing.T) {
	a, b := newPipe()
	done := make(chan error)
	go func() { _, err := Accept(b, Only(echo)); done <- err }()
	_, err := Select(a, "/a", "/b")
	if e, ok := errors.AsType[*NegotiationError](err); !ok || !errors.Is(err, ErrNotSupported) || !reflect.DeepEqual(e.Protocols, []string{"/a", "/b"}) {
		t.Errorf("select: %v", err)
	}
	a.Close()
	err = <-done
	if e, ok := errors.AsType[*NegotiationError](err); !ok || !errors.Is(err, ErrNotSupported) || !reflect.DeepEqual(e.Protocols, []string{"/a", "/b"}) {
		t.Errorf("accept: %v", err)
	}
	if _, err := Select(a); !errors.Is(err, ErrNotSupported) {
		t.Errorf("nothing to select: %v", err)
	}
}

// The answer ends at each offset, by EOF or by a reset: never a bare io.EOF.
func TestAnswerCut(t *testing.T) {
	reset := errors.New("reset")
	full := header + mEcho
	for i := range full {
		for _, err := range []error{io.ErrUnexpectedEOF, reset} {
			r := io.MultiReader(strings.NewReader(full[:i]), iotest.ErrReader(err))
			if err == io.ErrUnexpectedEOF {
				r = strings.NewReader(full[:i])
			}
			a, _ := newPipe()
			c := lazy(readFrom{a, r}, echo)
			_, got := c.Read(make([]byte, 1))
			if _, ok := errors.AsType[*NegotiationError](got); !ok || !errors.Is(got, err) || errors.Is(got, io.EOF) {
				t.Errorf("lazy, cut at %d: %v, want %v", i, got, err)
			}
			r = io.MultiReader(strings.NewReader(full[:i]), iotest.ErrReader(err))
			_, got = Select(readFrom{a, r}, echo)
			if _, ok := errors.AsType[*NegotiationError](got); !ok || !errors.Is(got, err) || errors.Is(got, io.EOF) {
				t.Errorf("select, cut at %d: %v, want %v", i, got, err)
			}
		}
	}
}

// readFrom is a pipe with other bytes to read.
type readFrom struct {
	*pipe
	r io.Reader
}

func (f readFrom) Read(b []byte) (int, error) { return f.r.Read(b) }
func (f readFrom) Ready() bool                { return false }

func TestProposalCut(t *testing.T) {
	full := header + mEcho
	for i := range full {
		a, b := newPipe()
		write(t, a, full[:i])
		a.CloseWrite()
		want := io.ErrUnexpectedEOF
		if i == 0 {
			want = io.EOF // nobody asked for anything
		}
		_, err := Accept(b, Only(echo))
		if _, ok := errors.AsType[*NegotiationError](err); !ok || !errors.Is(err, want) {
			t.Errorf("cut at %d: %v, want %v", i, err, want)
		}
		c := new(Conn)
		a, b = newPipe()
		write(t, a, full[:i])
		a.CloseWrite()
		if err := c.Accept(b, Only(echo)); !errors.Is(err, want) {
			t.Errorf("cut at %d: %v, want %v", i, err, want)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, want) || err == io.EOF {
			t.Errorf("read after a cut at %d: %v", i, err)
		}
		if _, err := c.Write(nil); !errors.Is(err, want) {
			t.Errorf("write after a cut at %d: %v", i, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAcceptMalformed(t *testing.T) {
	tests := []struct{ name, in string }{
		{"HTTP", "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"},
		{"another version", "\x13/multistream/2.0.0\n"},
		{"proposal first", mEcho + mEcho},
		{"empty message", header + "\x00"},
		{"no newline", header + "\x0c/echo/1.0.0 "},
		{"1025 bytes", header + "\x81\x08" + strings.Repeat("x", 1024) + "\n"},
		{"length not minimal", header + "\x8c\x00/echo/1.0.0\n"},
		{"length of three bytes", header + "\x80\x80\x01"},
		{"endless length", header + strings.Repeat("\xff", 100)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := newPipe()
			write(t, a, tt.in)
			_, err := Accept(bare{b}, Only(echo))
			if _, ok := errors.AsType[*NegotiationError](err); !ok || !errors.Is(err, ErrMalformed) {
				t.Errorf("%v", err)
			}
		})
	}
	// 1024 bytes are not too many.
	a, b := newPipe()
	write(t, a, header+string(appendMessage(nil, false, long)))
	if id, err := Accept(b, Only(long)); err != nil || id != long {
		t.Error(err)
	}
}

// An initiator that never ends is given up.
func TestMillionProposals(t *testing.T) {
	for _, tok := range []string{"\x03/a\n", ls, "\x01\n", na} {
		a, _ := newPipe()
		r := strings.NewReader(header + strings.Repeat(tok, 1_000_000))
		all := r.Len()
		_, err := Accept(readFrom{a, r}, Only(echo))
		e, ok := errors.AsType[*NegotiationError](err)
		if !ok || !errors.Is(err, ErrMalformed) || len(e.Protocols) > maxRefused {
			t.Errorf("%q: %v", tok, err)
		}
		if read, max := all-r.Len(), len(header)+len(tok)*maxProposals; read > max {
			t.Errorf("%q: read %d bytes, want at most %d", tok, read, max)
		}
		if n := len(a.sent()); n > 1024 {
			t.Errorf("%q: %d bytes of answers", tok, n)
		}
	}
}

// After a refusal, bytes of a lazy initiator's application are not taken for
// another proposal.
// https://github.com/multiformats/go-multistream/issues/20
func TestNoSmuggling(t *testing.T) {
	a, b := newPipe()
	c := lazy(a, "/switch/1.0.0")
	write(t, c, header+mEcho+"rm -rf /")
	s := new(Conn)
	if err := s.Accept(b, Only(echo)); !errors.Is(err, ErrNotSupported) {
		t.Fatalf("accepted %q: %v", s.Protocol(), err)
	}
	if got := b.sent(); got != header+na {
		t.Errorf("answered %q", got)
	}
	s.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrNotSupported) {
		t.Error(err)
	}
}

func TestList(t *testing.T) {
	ids := []string{echo, long, "/x"}
	a, b := newPipe()
	done := make(chan error)
	go func() { _, err := Accept(b, Only(ids...)); done <- err }()
	got, err := List(a)
	if err != nil || !reflect.DeepEqual(got, ids) {
		t.Errorf("got %.80q, %v", got, err)
	}
	a.Close()
	<-done

	// "implementations MUST NOT depend on a remote node supporting ls"
	// https://github.com/multiformats/multistream-select#listing
	a, b = newPipe()
	go func() { _, err := Accept(b, Protocols{Match: Only(echo).Match}); done <- err }()
	if _, err := List(a); !errors.Is(err, ErrNotSupported) {
		t.Errorf("no list: %v", err)
	}
	a.Close()
	<-done

	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("/protocol/%d", i))
	}
	b0 := appendList(nil, many)
	n, err := readLength(bytes.NewReader(b0), make([]byte, 1), maxList)
	if err != nil || n > maxList {
		t.Errorf("a list of %d bytes, %v", n, err)
	}
	for _, bad := range []string{"", "\x00", "\x02\n", "\x01x", "\x02\n\n\n", "\x0f\x0c/echo/1.0.0\n\n", "\x0d\x0c/echo/1.0.0\n", "\x80\x80\x08", "\x03\x00\n\n"} {
		a, b := newPipe()
		write(t, b, header+bad)
		b.Close()
		if ids, err := List(a); err == nil {
			t.Errorf("list %q: got %q", bad, ids)
		}
	}
}

func TestBadProposal(t *testing.T) {
	for _, id := range []string{"", "na", "ls", "/a\n/b", long + "x"} {
		a, _ := newPipe()
		if _, err := Select(a, id); err == nil {
			t.Errorf("selected %.20q", id)
		}
		c := lazy(a, id)
		if _, err := c.Write([]byte("x")); err == nil {
			t.Errorf("wrote to %.20q", id)
		}
		if _, err := c.Read([]byte("x")); err == nil {
			t.Errorf("read from %.20q", id)
		}
		c.Close()
		if a.sent() != "" {
			t.Errorf("sent %q", a.sent())
		}
	}
}

func TestSelectReadsNoMore(t *testing.T) {
	a, b := newPipe()
	write(t, b, header+na+mEcho+"next")
	if _, err := Select(a, "/a", echo); err != nil {
		t.Fatal(err)
	}
	expect(t, a, "next")

	write(t, a, header+"\x03/a\n"+mEcho+"next")
	expect(t, b, header+"\x03/a\n"+mEcho) // what Select sent
	if _, err := Accept(bare{b}, Only(echo)); err != nil {
		t.Fatal(err)
	}
	expect(t, b, "next")
}

func TestOnly(t *testing.T) {
	p := Only(echo)
	id := []byte(echo)
	if n := testing.AllocsPerRun(100, func() { p.Match(id) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Both ends at once, on many streams.
func TestManyStreams(t *testing.T) {
	var wg sync.WaitGroup
	for range 200 {
		a, b := newPipe()
		wg.Go(func() {
			c := lazy(a, echo)
			wg.Go(func() { io.WriteString(c, "hello"); c.CloseWrite() })
			if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
		wg.Go(func() {
			s := new(Conn)
			if err := s.Accept(b, Only(echo)); err != nil {
				t.Error(err)
			}
			io.Copy(s, s)
			s.Close()
		})
	}
	wg.Wait()
}

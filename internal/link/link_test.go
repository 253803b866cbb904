package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
)

func TestBorrow(t *testing.T) {
	for _, c := range []struct{ n, want int }{
		{0, Small}, {Small, Small}, {Small + 1, Large}, {65537, Large}, {Large + 1, Bulk}, {Bulk, Bulk}, {Bulk + 1, Batch}, {Batch, Batch},
	} {
		b := Borrow(c.n)
		if len(*b) != c.want {
			t.Errorf("%d: got %d bytes, want %d", c.n, len(*b), c.want)
		}
		GiveBack(b)
	}
}

func TestTurn(t *testing.T) {
	turn := NewTurn()
	turn.Lock()
	if turn.TryLock() {
		t.Error("taken twice")
	}
	turn.Unlock()
	if !turn.TryLock() {
		t.Error("not free")
	}
}

// slow takes as many bytes as it is told, and then times out or fails.
type slow struct {
	net.Conn
	got []byte
	n   int
	err error
}

func (c *slow) Write(p []byte) (int, error) {
	n := min(c.n, len(p))
	c.got, c.n = append(c.got, p[:n]...), c.n-n
	if n < len(p) {
		return n, c.err
	}
	return n, nil
}

func TestOut(t *testing.T) {
	late := fmt.Errorf("late: %w", os.ErrDeadlineExceeded)
	c := &slow{n: 3, err: late}
	o := Out{Conn: c}
	if err := o.FlushRest(); err != nil || len(c.got) > 0 {
		t.Errorf("nothing to flush: %v", err)
	}
	if err := o.Flush(append(o.Room(5), "abcde"...)); err != os.ErrDeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if err := o.FlushRest(); err != os.ErrDeadlineExceeded {
		t.Errorf("got %v", err)
	}
	c.n = 100
	if err := o.Flush(append(o.Room(2), "fg"...)); err != nil || string(c.got) != "abcdefg" {
		t.Errorf("sent %q, %v", c.got, err)
	}

	fault := errors.New("fault")
	c.n, c.err = 1, fault
	if err := o.Flush(append(o.Room(2), "hi"...)); err != fault {
		t.Errorf("got %v", err)
	}
	c.n, c.err = 1, nil
	if err := o.Flush(append(o.Room(2), "jk"...)); err != io.ErrShortWrite {
		t.Errorf("got %v", err)
	}
	c.n = 100
	if err := o.FlushRest(); err != nil || string(c.got) != "abcdefghj" {
		t.Errorf("sent %q, %v: an error that is no deadline leaves nothing", c.got, err)
	}
}

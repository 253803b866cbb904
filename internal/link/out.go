package link

import (
	"errors"
	"io"
	"net"
	"os"
)

// Out writes to a connection. What a write leaves when it ends at its deadline is kept,
// and goes out before anything else, so that a record is never torn.
type Out struct {
	Conn net.Conn
	buf  *[]byte // where b begins, or nil
	b    []byte  // to be written
}

// Room returns what was kept, with room to append n bytes, Batch at most, for the
// next Flush.
func (o *Out) Room(n int) []byte {
	if o.buf == nil {
		o.buf = Borrow(n)
		o.b = (*o.buf)[:0]
	}
	return o.b
}

// Flush writes b, which Room has returned and the caller appended to. At
// os.ErrDeadlineExceeded it keeps the rest; after another error there is none.
func (o *Out) Flush(b []byte) error {
	n, err := o.Conn.Write(b)
	o.b = b[n:]
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		if len(o.b) > 0 {
			return os.ErrDeadlineExceeded
		}
		err = nil
	case err == nil && len(o.b) > 0:
		err = io.ErrShortWrite
	}
	if o.buf != nil {
		GiveBack(o.buf)
	}
	o.buf, o.b = nil, nil
	return err
}

// FlushRest writes what was kept.
func (o *Out) FlushRest() error {
	if len(o.b) == 0 {
		return nil
	}
	return o.Flush(o.b)
}

package link

import (
	"errors"
	"net"
	"os"
)

// A Socket is what crypto/tls has for a connection. Its writes know no deadline:
// crypto/tls could not go on after one. What they leave then is sent before all that
// follows. And the records of one Write go out together.
type Socket struct {
	net.Conn      // below
	turn     Turn // guards what follows: crypto/tls writes while it reads, too

	out        Out
	b          []byte // out's, collected
	collecting bool   // until Send
	err        error  // a write failed, maybe within a record
}

// NewSocket returns the socket of a connection.
func NewSocket(c net.Conn) *Socket {
	return &Socket{Conn: c, turn: NewTurn(), out: Out{Conn: c}}
}

// Collect keeps what is written until Send: the records of n bytes.
func (s *Socket) Collect(n int) {
	const record, overhead = 16 << 10, 5 + 1 + 16
	s.turn.Lock()
	defer s.turn.Unlock()
	s.b, s.collecting = s.out.Room(n+(n+record-1)/record*overhead), true
}

// Send sends what was collected, or what was left before. os.ErrDeadlineExceeded leaves
// it for the next time; after any other error nothing can be written.
func (s *Socket) Send() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if !s.collecting {
		return s.check(s.out.FlushRest())
	}
	b := s.b
	s.b, s.collecting = nil, false
	if len(b) == 0 {
		return s.err
	}
	return s.check(s.out.Flush(b))
}

// check returns why nothing can be written any more, or cannot at the moment.
func (s *Socket) check(err error) error {
	if s.err == nil && err != os.ErrDeadlineExceeded {
		s.err = err
	}
	if err == nil {
		err = s.err
	}
	return err
}

// Write implements net.Conn.
func (s *Socket) Write(p []byte) (int, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	switch {
	case s.err != nil:
		return 0, s.err
	case s.collecting:
		s.b = append(s.b, p...)
	default:
		if err := s.check(s.out.Flush(append(s.out.Room(len(p)), p...))); err != nil && err != os.ErrDeadlineExceeded {
			return 0, err
		}
	}
	return len(p), nil
}

// Read implements net.Conn.
func (s *Socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		// crypto/tls goes on after errors that are temporary in so many words.
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

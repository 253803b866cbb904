package rtc

import (
	"net"
	"os"
	"sync"
	"time"
)

// maxQueue is how many packets wait for the goroutine of a connection.
const maxQueue = 256

// Inbox is the packets that wait for the goroutine of a connection: the half of a net.Conn
// that reads. It is set up by Init.
type Inbox struct {
	queue  chan []byte
	closed chan struct{}
	once   sync.Once

	deadline struct {
		sync.Mutex
		t       time.Time
		changed chan struct{}
	}
}

// Init is called once, before anything else.
func (x *Inbox) Init() {
	x.queue, x.closed = make(chan []byte, maxQueue), make(chan struct{})
	x.deadline.changed = make(chan struct{})
}

// Put adds a copy of a packet, or drops it if too many wait.
func (x *Inbox) Put(b []byte) {
	select {
	case x.queue <- append([]byte(nil), b...):
	default:
	}
}

// Shut ends reading. It tells whether this was the first time.
func (x *Inbox) Shut() (first bool) {
	x.once.Do(func() {
		first = true
		close(x.closed)
	})
	return first
}

// Read returns the next packet.
func (x *Inbox) Read(p []byte) (int, error) {
	select { // the fast way
	case b := <-x.queue:
		return copy(p, b), nil
	default:
	}
	for {
		x.deadline.Lock()
		t, changed := x.deadline.t, x.deadline.changed
		x.deadline.Unlock()
		if !t.IsZero() { // none but such that have passed are set
			return 0, os.ErrDeadlineExceeded
		}
		select {
		case b := <-x.queue:
			return copy(p, b), nil
		case <-x.closed:
			return 0, net.ErrClosed
		case <-changed:
		}
	}
}

// Waiting implements Waiter.
func (x *Inbox) Waiting() bool { return len(x.queue) > 0 }

// SetReadDeadline takes no time but the past, and none.
func (x *Inbox) SetReadDeadline(t time.Time) error {
	x.deadline.Lock()
	defer x.deadline.Unlock()
	x.deadline.t = t
	close(x.deadline.changed)
	x.deadline.changed = make(chan struct{})
	return nil
}

// SetDeadline is SetReadDeadline: Writes do not wait.
func (x *Inbox) SetDeadline(t time.Time) error { return x.SetReadDeadline(t) }

// SetWriteDeadline does nothing.
func (x *Inbox) SetWriteDeadline(time.Time) error { return nil }

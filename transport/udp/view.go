package udp

import (
	"net"
	"os"
	"sync"
	"time"
)

const (
	maxPacket = 2048 // bytes; a longer packet is cut off, as a read with a short buffer does
	maxQueue  = 256  // packets that wait in a view for their reader; further ones are dropped
)

// Packets returns a net.PacketConn that reads the packets of these kinds and writes
// to the port. [ErrTaken] is returned while somebody else has one of the kinds.
// Closing it leaves the port to its other users.
func (p *Port) Packets(k Kind) (net.PacketConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.views {
		if k&(1<<i) != 0 && p.views[i].Load() != nil {
			return nil, ErrTaken
		}
	}
	v := &view{port: p, queue: make(chan packet, maxQueue), closed: make(chan struct{})}
	v.deadline.changed = make(chan struct{})
	for i := range p.views {
		if k&(1<<i) != 0 {
			p.views[i].Store(v)
		}
	}
	p.Hold()
	p.startPumpLocked()
	return v, nil
}

// view is what one user sees of a port.
type view struct {
	port   *Port
	queue  chan packet
	once   sync.Once
	cut    sync.Once
	closed chan struct{} // by Close, or when the socket has failed

	deadline struct {
		sync.Mutex
		t       time.Time
		changed chan struct{} // closed when t changes
	}
}

type packet struct {
	data []byte
	from net.Addr
}

func (v *view) put(b []byte, from net.Addr) {
	select {
	case v.queue <- packet{append([]byte(nil), b...), from}:
	default:
	}
}

// ReadFrom waits for a packet, and cuts it off at the length of b.
func (v *view) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		v.deadline.Lock()
		t, changed := v.deadline.t, v.deadline.changed
		v.deadline.Unlock()
		var late <-chan time.Time
		var timer *time.Timer
		if !t.IsZero() {
			d := time.Until(t)
			if d <= 0 {
				return 0, nil, v.fail("read", os.ErrDeadlineExceeded)
			}
			timer = time.NewTimer(d)
			late = timer.C
		}
		select {
		case <-v.closed: // even if packets wait
			return 0, nil, v.fail("read", net.ErrClosed)
		default:
		}
		var p packet
		select {
		case p = <-v.queue:
		case <-v.closed:
		case <-late:
		case <-changed:
		}
		if timer != nil {
			timer.Stop()
		}
		if p.from != nil {
			return copy(b, p.data), p.from, nil
		}
	}
}

// WriteTo sends a packet.
func (v *view) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := v.open(); err != nil {
		return 0, err
	}
	return v.port.sock.WriteTo(b, to)
}

// open fails once the view was closed.
func (v *view) open() error {
	select {
	case <-v.closed:
		return v.fail("write", net.ErrClosed)
	default:
		return nil
	}
}

func (v *view) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: v.LocalAddr(), Err: err}
}

// end makes calls fail.
func (v *view) end() { v.cut.Do(func() { close(v.closed) }) }

// Close gives the kinds of packets back.
func (v *view) Close() error {
	err := net.ErrClosed
	v.once.Do(func() {
		v.end()
		p := v.port
		p.mu.Lock()
		for i := range p.views {
			p.views[i].CompareAndSwap(v, nil)
		}
		p.mu.Unlock()
		err = p.Close()
	})
	return err
}

func (v *view) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(v.port.at) }

func (v *view) SetDeadline(t time.Time) error { return v.SetReadDeadline(t) }

func (v *view) SetReadDeadline(t time.Time) error {
	v.deadline.Lock()
	defer v.deadline.Unlock()
	v.deadline.t = t
	close(v.deadline.changed)
	v.deadline.changed = make(chan struct{})
	return nil
}

// SetWriteDeadline does nothing: writes do not wait for the peer.
func (v *view) SetWriteDeadline(time.Time) error { return nil }

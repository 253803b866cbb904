package udp

import (
	"net"

	"github.com/plexus-p2p/plexus/internal/addrport"
)

// What a system call sends at most: packets, as the kernel's limit was at first, and bytes,
// as of one packet.
const (
	maxBatch = 64
	maxBytes = 65507
)

// WriteBatch sends b as packets of size bytes each, of which the last may be shorter. On
// Linux that is one system call, where c is a socket of the system or a view of one. If one of
// them cannot be sent, the rest may not be either.
func WriteBatch(c net.PacketConn, b []byte, size int, to net.Addr) error {
	sock := c
	if v, ok := c.(*view); ok {
		if err := v.open(); err != nil {
			return err
		}
		sock = v.port.sock
	}
	u, ok := sock.(*net.UDPConn)
	if ok && len(b) > size && len(b) <= min(maxBatch*size, maxBytes) {
		if writeSegments(u, b, size, addrport.Of(to)) {
			return nil
		}
	}
	for len(b) > 0 {
		n := min(size, len(b))
		if _, err := sock.WriteTo(b[:n], to); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// Pending returns a function that tells whether a packet can be read of c at once, which
// must not be called concurrently. It does not tell where the system cannot, or c is not a
// socket of the system: then it returns false.
func Pending(c net.PacketConn) func() bool {
	if u, ok := c.(*net.UDPConn); ok {
		if raw, err := u.SyscallConn(); err == nil {
			return pending(raw)
		}
	}
	return func() bool { return false }
}

package udp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writeSegments has the kernel cut b into packets. It tells whether they were sent: an
// older kernel cannot do it, nor some devices.
//
// https://docs.kernel.org/networking/segmentation-offloads.html
func writeSegments(c *net.UDPConn, b []byte, size int, to netip.AddrPort) bool {
	oob := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(size))
	n, _, err := c.WriteMsgUDPAddrPort(b, oob, to)
	return err == nil && n == len(b)
}

// pending asks how long the next packet is.
func pending(raw syscall.RawConn) func() bool {
	var n int
	var err error
	ask := func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) } // which is FIONREAD
	return func() bool { return raw.Control(ask) == nil && err == nil && n > 0 }
}

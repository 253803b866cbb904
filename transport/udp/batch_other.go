//go:build !linux

package udp

import (
	"net"
	"net/netip"
	"syscall"
)

func writeSegments(*net.UDPConn, []byte, int, netip.AddrPort) bool { return false }

func pending(syscall.RawConn) func() bool { return func() bool { return false } }

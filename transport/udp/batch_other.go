//go:build !linux

package udp

import (
	"net"
	"net/netip"
)

func writeSegments(*net.UDPConn, []byte, int, netip.AddrPort) bool { return false }

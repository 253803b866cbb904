package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"time"

	"github.com/plexus-p2p/plexus/internal/addrport"
)

// System is the operating system's [Network]. Its connections are *net.TCPConn and
// *net.UDPConn.
//
// A listener on an IPv6 address, be it "::", takes IPv6 alone on every system.
type System struct{}

var (
	_ Network = System{}
	_ Watcher = System{}
)

// unsent is how many bytes wait in the kernel behind those that it may send
// already. More would not be faster, but late: what a muxer has handed over cannot
// be overtaken by a more urgent stream. 128 KiB are 10 ms at 100 Mbit/s.
const unsent = 128 << 10

// watch has the kernel look whether the peer's host is still there: after 30 s of silence,
// and five times in the 10 s that follow. It does so while nothing that we sent waits for
// its acknowledgement, and it wakes nobody as long as there are answers.
var watch = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 2 * time.Second, Count: 5}

// Watches implements [Watcher]: TCP connections are watched where the system lets each
// have times of its own.
func (System) Watches() bool {
	switch runtime.GOOS {
	case "linux", "android", "darwin", "ios", "freebsd", "netbsd", "dragonfly", "windows":
		return true
	}
	return false
}

// DialTCP connects. Where local has a port, that of a listener say, and it cannot
// be used, as when an older connection to remote has it, the system chooses another one.
func (System) DialTCP(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	if local.IsValid() && local.Port() != 0 && canShare {
		c, err := dialTCP(ctx, local, remote)
		switch {
		case err == nil && c.LocalAddr().String() != c.RemoteAddr().String():
			return c, nil
		case err == nil:
			// TCP lets a socket connect to itself, even while somebody
			// listens on its port. Nobody wants that.
			c.Close()
		case !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL):
			return nil, err
		}
	}
	local = netip.AddrPortFrom(local.Addr(), 0)
	c, err := dialTCP(ctx, local, remote)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func dialTCP(ctx context.Context, local, remote netip.AddrPort) (*net.TCPConn, error) {
	network, err := network("tcp", remote)
	if err != nil {
		return nil, err
	}
	share := local.Port() != 0
	d := net.Dialer{KeepAliveConfig: watch, Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd uintptr) error {
			limitUnsent(fd)
			if share {
				return sharePort(fd)
			}
			return nil
		})
	}}
	if !share && (!local.IsValid() || local.Addr().IsUnspecified()) {
		// Not bound at all: a socket that is bound first takes its port from all
		// destinations, and a machine has only so many.
		c, err := d.DialContext(ctx, network, addrport.Unmap(remote).String())
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	}
	return d.DialTCP(ctx, network, local, addrport.Unmap(remote))
}

// ListenTCP listens. The port can be shared with [System.DialTCP], but not with
// another listener where the system can tell the two apart.
func (System) ListenTCP(ctx context.Context, on netip.AddrPort) (net.Listener, error) {
	network, err := network("tcp", on)
	if err != nil {
		return nil, err
	}
	lc := net.ListenConfig{KeepAliveConfig: watch, Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd uintptr) error {
			limitUnsent(fd) // accepted connections inherit it
			if !shareLate {
				return sharePort(fd)
			}
			return nil
		})
	}}
	lc.SetMultipathTCP(false) // a plain socket cannot share the port of an MPTCP one
	l, err := lc.Listen(ctx, network, addrport.Unmap(on).String())
	if err != nil || !shareLate {
		return l, err
	}
	// A port that is shared from the start is given to any number of listeners
	// of one user, and connections end up with either. Sharing only from now on
	// makes the second one fail, and still lets us dial from the port.
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err == nil {
		err = control(raw, sharePort)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("transport: listen %v: share the port: %w", on, err)
	}
	return l, nil
}

// ListenUDP opens a UDP socket. Nobody else can share its port.
func (System) ListenUDP(ctx context.Context, on netip.AddrPort) (net.PacketConn, error) {
	network, err := network("udp", on)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	return lc.ListenPacket(ctx, network, addrport.Unmap(on).String())
}

// LookupNetIP resolves as net.DefaultResolver does. IPv4 addresses come as such.
func (System) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	ips, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, err
}

// LookupTXT resolves as net.DefaultResolver does.
func (System) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return net.DefaultResolver.LookupTXT(ctx, name)
}

// Addrs lists the addresses of the interfaces. Where the system does not tell (an
// app on Android 11 or later may not ask), it gives those that packets to the
// Internet would come from, and finds them without sending any.
func (System) Addrs() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	var addrs []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				addrs = append(addrs, ip.Unmap())
			}
		}
	}
	if err == nil && len(addrs) > 0 {
		return addrs, nil
	}
	// The documentation's networks, RFC 5737 and RFC 3849: routed like the Internet.
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		if c, err := net.Dial("udp", to); err == nil {
			if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
				addrs = append(addrs, a.AddrPort().Addr().Unmap())
			}
			c.Close()
		}
	}
	if len(addrs) > 0 {
		return addrs, nil
	}
	return nil, err
}

// network returns "tcp4" or "tcp6". The latter keeps Go from listening on IPv4 too.
func network(proto string, a netip.AddrPort) (string, error) {
	switch ip := a.Addr().Unmap(); {
	case ip.Is4():
		return proto + "4", nil
	case ip.Is6():
		return proto + "6", nil
	}
	return "", &net.OpError{Op: "socket", Net: proto, Err: &net.AddrError{Err: "no IP address", Addr: a.String()}}
}

func control(c syscall.RawConn, f func(fd uintptr) error) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = f(fd) }); cerr != nil {
		return cerr
	}
	return err
}

package transport

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plexus-p2p/plexus/internal/addrport"
)

// Dialed connections get the options, accepted ones inherit them.
func TestOptions(t *testing.T) {
	l := listen(t, loopback)
	c, err := System{}.DialTCP(t.Context(), netip.AddrPort{}, addrport.Of(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for name, c := range map[string]net.Conn{"dialed": c, "accepted": d} {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			for _, o := range []struct {
				what        string
				level, name int
				want        int
			}{
				{"TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent},
				{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
				{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				// What Watches promises: 40 s.
				{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 30},
				{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 2},
				{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 5},
			} {
				if got, err := unix.GetsockoptInt(int(fd), o.level, o.name); err != nil || got != o.want {
					t.Errorf("%s: %s = %d, %v, want %d", name, o.what, got, err, o.want)
				}
			}
		})
	}
}

// The limit must not cost throughput where the network is fast.
func BenchmarkLoopback(b *testing.B) {
	for _, limited := range []bool{true, false} {
		b.Run(map[bool]string{true: "limited", false: "unlimited"}[limited], func(b *testing.B) {
			l, err := System{}.ListenTCP(b.Context(), loopback)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				for p := make([]byte, 128<<10); err == nil; {
					_, err = c.Read(p)
				}
			}()
			c, err := System{}.DialTCP(b.Context(), netip.AddrPort{}, addrport.Of(l.Addr()))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			if !limited {
				raw, err := c.(*net.TCPConn).SyscallConn()
				if err != nil {
					b.Fatal(err)
				}
				raw.Control(func(fd uintptr) {
					unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 1<<30)
				})
			}
			p := make([]byte, 64<<10)
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				c.Write(p)
			}
		})
	}
}

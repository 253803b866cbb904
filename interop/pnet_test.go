package interop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	gopeer "github.com/libp2p/go-libp2p/core/peer"
	goquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	gotcp "github.com/libp2p/go-libp2p/p2p/transport/tcp"
	gows "github.com/libp2p/go-libp2p/p2p/transport/websocket"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/interop/contract"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/node/full"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security/pnet"
)

// TestPrivate has plexus and go-libp2p in one private network, and in different ones: by
// TCP and by WebSocket, whoever dials. Over QUIC a private network is a thing of plexus
// alone, and go-libp2p a stranger.
//
// "Nodes of different private networks must not be able to connect to each other. This
// extends to node in private network connecting to node in public network."
// https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md
func TestPrivate(t *testing.T) {
	one, two := pnet.Key{31: 1}, pnet.Key{31: 2}
	for _, c := range []struct {
		name         string
		ours, theirs pnet.Key // no key: an open host
		ok           bool
	}{
		{"members", one, one, true},
		{"strangers", one, two, false},
		{"go is open", one, pnet.Key{}, false},
		{"plexus is open", pnet.Key{}, one, false},
	} {
		for transport, on := range map[string]string{
			"tcp": "/ip4/127.0.0.1/tcp/0", "ws": "/ip4/127.0.0.1/tcp/0/ws", "quic": "/ip4/127.0.0.1/udp/0/quic-v1",
		} {
			if transport == "quic" && c.theirs != (pnet.Key{}) {
				continue // go-libp2p refuses to start
			}
			t.Run(c.name+"/"+transport, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				ours, theirs := newPrivate(t, c.ours, on), newGoPrivate(t, c.theirs, on)
				id, err := peer.Parse(theirs.ID().String())
				if err != nil {
					t.Fatal(err)
				}
				check := func(how string, err error) {
					t.Helper()
					if (err == nil) != c.ok {
						t.Errorf("%s: %v", how, err)
					}
					// Over QUIC go-libp2p believes itself connected until it is told.
					if !c.ok && (len(ours.ConnsTo(id)) > 0 || transport != "quic" && len(theirs.Network().Conns()) > 0) {
						t.Errorf("%s: connected to a stranger", how)
					}
				}
				conn, err := ours.Dial(ctx, peer.AddrInfo{ID: id, Addrs: theirs.Addrs()})
				if err == nil {
					var s *plexus.Stream
					if s, err = conn.Open(ctx, contract.Echo); err == nil {
						err = echoes(s)
					}
					conn.Close()
				}
				check("plexus to go", err)
				if transport == "quic" && !errors.Is(err, pnet.ErrStranger) {
					t.Errorf("the error is %v, want ErrStranger in it", err)
				}

				me, err := gopeer.Decode(ours.ID().String())
				if err != nil {
					t.Fatal(err)
				}
				theirs.Network().ClosePeer(me)
				theirs.Peerstore().AddAddrs(me, ours.Addrs(), time.Hour)
				s, err := theirs.NewStream(ctx, me, contract.Echo)
				if err == nil {
					err = echoes(s)
				}
				check("go to plexus", err)
			})
		}
	}
}

// TestPrivatePeers does the same with the other stacks, by TCP.
//
// py-libp2p 0.8 is alone in a private network: it sends a nonce of 8 bytes, and encrypts by
// Salsa20, where the others have 24 and XSalsa20. What is tested of it is that both
// fail closed.
func TestPrivatePeers(t *testing.T) {
	one, two := pnet.NewKey(), pnet.NewKey()
	file := filepath.Join(t.TempDir(), "swarm.key")
	if err := pnet.SaveKey(file, one); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"js", "rust", "py"} {
		t.Run(name, func(t *testing.T) {
			open, err := load(t, name)
			if err != nil {
				skip(t, "%v", err)
			}
			member := *open
			member.argv = append(slices.Clone(open.argv), "--psk", file)
			t.Run("members", func(t *testing.T) { inPrivate(t, one, &member, name != "py") })
			t.Run("strangers", func(t *testing.T) { inPrivate(t, two, &member, false) })
			t.Run(name+" is open", func(t *testing.T) { inPrivate(t, one, open, false) })
			t.Run("plexus is open", func(t *testing.T) { inPrivate(t, pnet.Key{}, &member, false) })
		})
	}
}

// inPrivate has plexus with a key and another peer dial each other, which is to be ok.
func inPrivate(t *testing.T, key pnet.Key, theirs *program, ok bool) {
	t.Parallel()
	offer := contract.Offer{Transport: "tcp", Security: "noise", Muxer: "yamux"}
	ours := newPrivate(t, key, "/ip4/127.0.0.1/tcp/0")
	l, err := listen(t.Context(), theirs, offer)
	if err != nil {
		t.Fatal(err)
	}
	info, err := peer.ParseAddrInfo(l.addr)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ours.Dial(t.Context(), info)
	if err == nil {
		var s *plexus.Stream
		if s, err = conn.Open(t.Context(), contract.Echo); err == nil {
			err = echoes(s)
		}
	}
	if (err == nil) != ok {
		t.Errorf("plexus to %s: %v", theirs.name, err)
	}
	if err := l.stop(); err != nil {
		t.Error(err)
	}

	results, _, err := dial(t.Context(), theirs, ours.Info().Full()[0].String(), offer, []string{"connect", "echo"})
	if err != nil {
		t.Fatal(err)
	}
	for check, r := range results {
		if r.OK != ok {
			t.Errorf("%s to plexus: %s: %s", theirs.name, check, r.Detail)
		}
	}
}

// echoes sends 1 MiB and has it back.
func echoes(s interface {
	io.ReadWriteCloser
	CloseWrite() error
}) error {
	defer s.Close()
	out := bytes.Repeat([]byte("private"), 1<<20/7)
	errs := make(chan error, 1)
	go func() { // ends with the stream
		_, err := s.Write(out)
		if err == nil {
			err = s.CloseWrite()
		}
		errs <- err
	}()
	in, err := io.ReadAll(s)
	if err == nil && !bytes.Equal(in, out) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	return <-errs
}

func newPrivate(t *testing.T, key pnet.Key, on string) *plexus.Host {
	t.Helper()
	h, err := node.New(node.Config{
		Private: key, Listen: []string{on}, Transports: full.Transports,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	h.Handle(contract.Echo, func(_ context.Context, s *plexus.Stream) error {
		_, err := io.Copy(s, s)
		return err
	})
	return h
}

func newGoPrivate(t *testing.T, key pnet.Key, on string) host.Host {
	t.Helper()
	opts := []libp2p.Option{
		libp2p.ListenAddrStrings(on),
		libp2p.Transport(gotcp.NewTCPTransport), libp2p.Transport(gows.New),
		libp2p.DisableRelay(), libp2p.DisableMetrics(),
	}
	if key == (pnet.Key{}) {
		opts = append(opts, libp2p.Transport(goquic.NewTransport))
	} else {
		opts = append(opts, libp2p.PrivateNetwork(key[:]))
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	h.SetStreamHandler(contract.Echo, func(s network.Stream) {
		io.Copy(s, s)
		s.Close()
	})
	return h
}

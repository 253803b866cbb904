package private

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/transport/internal/certhash"
	"github.com/plexus-p2p/plexus/transport/internal/rtc"
	"github.com/plexus-p2p/plexus/transport/transporttest"
)

// pair are two hosts with a way to signal between them.
func pair(t *testing.T) (client, server *Transport, l *listener, failed chan error) {
	t.Helper()
	server = &Transport{Key: transporttest.Key(t)}
	client = &Transport{Key: transporttest.Key(t)}
	failed = make(chan error, 10)
	client.Open = func(ctx context.Context, _ ma.Multiaddr, _ peer.ID) (net.Conn, peer.PubKey, error) {
		a, b := net.Pipe()
		go func() {
			failed <- server.Signal(t.Context(), b, client.Key.Public())
			b.Close()
		}()
		return a, server.Key.Public(), nil
	}
	x, err := server.ListenSession(t.Context(), ma.StringCast("/webrtc"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return client, server, x.(*listener), failed
}

var relayed = ma.StringCast("/p2p-circuit/webrtc")

// Two hosts connect by signaling, know each other, and have streams both ways.
func TestPrivate(t *testing.T) {
	client, server, l, failed := pair(t)
	c, err := client.DialSession(t.Context(), relayed, server.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer c.(*rtc.Session).Drop()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.(*rtc.Session).Drop()
	if err := <-failed; err != nil {
		t.Errorf("Signal: %v", err)
	}
	if id, _ := c.Peer(); id != server.Key.ID() {
		t.Errorf("dialed %v", id)
	}
	if id, _ := s.Peer(); id != client.Key.ID() {
		t.Errorf("accepted %v", id)
	}
	var wg, serves sync.WaitGroup
	var end error // of s
	msg := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	for _, x := range []*rtc.Session{c.(*rtc.Session), s.(*rtc.Session)} {
		serves.Go(func() {
			err := x.Serve(func(st muxer.Stream) {
				go func() {
					io.Copy(st, st)
					st.Close()
				}()
			})
			if x == s {
				end = err
			}
		})
		for range 20 {
			wg.Go(func() {
				st, err := x.Open(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				go func() {
					st.Write(msg)
					st.CloseWrite()
				}()
				if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, msg) {
					t.Errorf("echo: %d bytes of %d, %v", len(got), len(msg), err)
				}
				st.Close()
			})
		}
	}
	wg.Wait()
	if err := c.Close(t.Context(), 7); err != nil {
		t.Error(err)
	}
	serves.Wait()
	if e, ok := errors.AsType[*muxer.SessionError](end); !ok || e.Code != 7 || !e.Remote {
		t.Errorf("ended by %v", end)
	}
}

func TestWrongPeer(t *testing.T) {
	client, _, _, _ := pair(t)
	if _, err := client.DialSession(t.Context(), relayed, client.Key.ID()); !errors.Is(err, security.ErrHandshake) {
		t.Errorf("somebody else: %v", err)
	}
}

// What makes no sense ends the signaling, with an error that says so.
func TestBadSignaling(t *testing.T) {
	good := description{ufrag: "abcd", pwd: strings.Repeat("x", 22), print: certhash.Of(nil), setup: "actpass", mid: "0"}
	message := func(typ uint64, data string) []byte {
		return pb.AppendDelimited(nil, pb.AppendBytes(pb.AppendUvarint(nil, 1, typ), 2, data))
	}
	var flood []byte
	for range maxCandidates + 1 {
		flood = append(flood, message(signalCandidate, "null")...)
	}
	offer := message(signalOffer, good.String())
	for name, b := range map[string][]byte{
		"an answer first":     message(signalAnswer, good.String()),
		"no SDP":              message(signalOffer, "hello"),
		"no fingerprint":      message(signalOffer, strings.ReplaceAll(good.String(), "sha-256", "md5")),
		"another SCTP port":   message(signalOffer, strings.ReplaceAll(good.String(), "5000", "5001")),
		"no protobuf":         {3, 0xff, 0xff, 0xff},
		"two offers":          append(bytes.Clone(offer), offer...),
		"no candidate":        append(bytes.Clone(offer), message(signalCandidate, "{")...),
		"too many candidates": append(bytes.Clone(offer), flood...),
	} {
		t.Run(name, func(t *testing.T) {
			_, server, _, _ := pair(t)
			a, b2 := net.Pipe()
			defer a.Close()
			go io.Copy(io.Discard, a)
			go a.Write(b)
			if err := server.Signal(t.Context(), b2, transporttest.Key(t).Public()); !errors.Is(err, ErrSignaling) {
				t.Errorf("got %v", err)
			}
			b2.Close()
		})
	}
}

// A peer whose certificate is not the one that it described is not connected to.
func TestFingerprint(t *testing.T) {
	client, server, _, failed := pair(t)
	if err := server.init(); err != nil {
		t.Fatal(err)
	}
	if err := client.init(); err != nil {
		t.Fatal(err)
	}
	other, err := rtc.NewCertificate(transporttest.Key(t))
	if err != nil {
		t.Fatal(err)
	}
	open := client.Open
	client.Open = func(ctx context.Context, to ma.Multiaddr, want peer.ID) (net.Conn, peer.PubKey, error) {
		c, key, err := open(ctx, to, want)
		return &forger{Conn: c, from: description{print: certhash.Of(client.cert.Certificate[0])}, to: description{print: certhash.Of(other.Certificate[0])}}, key, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := client.DialSession(ctx, relayed, server.Key.ID()); err == nil {
		t.Error("the client connected")
	}
	if err := <-failed; !errors.Is(err, ErrCertHash) {
		t.Errorf("the server: %v", err)
	}
}

// forger changes the fingerprint in what is written.
type forger struct {
	net.Conn
	from, to description
}

func (f *forger) Write(b []byte) (int, error) {
	line := func(d description) []byte {
		for l := range strings.Lines(d.String()) {
			if strings.HasPrefix(l, "a=fingerprint") {
				return []byte(l)
			}
		}
		return nil
	}
	_, err := f.Conn.Write(bytes.Replace(b, line(f.from), line(f.to), 1))
	return len(b), err
}

// FuzzSignal: whatever is signaled is understood, or an error.
func FuzzSignal(f *testing.F) {
	d := description{ufrag: "abcd", pwd: strings.Repeat("x", 22), print: certhash.Of(nil), setup: "actpass", mid: "0"}
	f.Add(pb.AppendBytes(pb.AppendUvarint(nil, 1, signalOffer), 2, d.String()))
	f.Add(pb.AppendBytes(pb.AppendUvarint(nil, 1, signalCandidate), 2, `{"candidate":"candidate:1 1 udp 1 127.0.0.1 1 typ host"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, data, err := parseSignal(b)
		if err != nil {
			return
		}
		parseCandidate(data)
		if d, err := parseDescription(data); err == nil {
			again, err := parseDescription(d.String())
			if err != nil || again.ufrag != d.ufrag || again.pwd != d.pwd || again.mid != d.mid || !bytes.Equal(again.print, d.print) {
				t.Fatalf("%+v became %+v, %v", d, again, err)
			}
		}
	})
}

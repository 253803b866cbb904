//go:build linux

package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A chatRoom is go-peer of universal-connectivity, which go get does not find, without its
// screen: gossipsub without any option, so that messages are signed and known by author
// and sequence number; the three topics, without validators; a message is the bytes of a
// line, and its author called by the last 8 characters of the ID.
//
// https://github.com/libp2p/universal-connectivity/blob/e18a6de/go-peer/chatroom.go,
// https://github.com/libp2p/universal-connectivity/blob/e18a6de/go-peer/main.go
type chatRoom struct {
	ps              *pubsub.PubSub
	chat            *pubsub.Topic
	lines, meetings *pubsub.Subscription
}

const (
	chatTopic    = "universal-connectivity"
	chatFiles    = chatTopic + "-file"
	chatMeetings = "universal-connectivity-browser-peer-discovery"
)

func newChatRoom(ctx context.Context, t *testing.T, addr string) (*chatRoom, peer.AddrInfo) {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	r := new(chatRoom)
	if r.ps, err = pubsub.NewGossipSub(ctx, h); err != nil {
		t.Fatal(err)
	}
	join := func(name string) (*pubsub.Topic, *pubsub.Subscription) {
		topic, err := r.ps.Join(name)
		if err != nil {
			t.Fatal(err)
		}
		sub, err := topic.Subscribe()
		if err != nil {
			t.Fatal(err)
		}
		return topic, sub
	}
	r.chat, r.lines = join(chatTopic)
	join(chatFiles)
	_, r.meetings = join(chatMeetings)
	return r, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}
}

// TestChat has plexus chat talk with universal-connectivity: lines go both ways as they were
// typed, each knows the other by the end of his ID, and hears where he is.
func TestChat(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "plexus")
	if out, err := exec.Command("go", "build", "-C", "..", "-buildvcs=false", "-o", bin, "./cmd/plexus").CombinedOutput(); err != nil {
		t.Fatalf("go build ./cmd/plexus: %v\n%s", err, out)
	}
	for _, addr := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"} {
		t.Run(addr[len("/ip4/127.0.0.1/"):][:3], func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			room, info := newChatRoom(ctx, t, addr)
			to := fmt.Sprintf("%s/p2p/%s", info.Addrs[0], info.ID)
			c := newProcess(ctx, &program{name: "plexus chat", argv: []string{bin}}, "chat", "--json", "--nick", "alice",
				"--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--peer", to)
			in, out, err := c.start()
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				in.Close()
				syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
				c.cmd.Wait()
				if t.Failed() {
					t.Logf("stderr of plexus chat:\n%s", c.stderr.tail())
				}
			}()
			said := bufio.NewScanner(out)

			var alice peer.ID
			for ev := range events(t, said) {
				if ev.Event == "peer" {
					if alice, err = peer.Decode(ev.Peer); err != nil {
						t.Fatal(err)
					}
				}
				if ev.Event == "joined" {
					if ev.From != info.ID.String() {
						t.Errorf("%s has come, want %s", ev.From, info.ID)
					}
					break
				}
			}

			// From the room to plexus.
			const hello = "hi from go-peer ✓\nin two lines"
			if err := room.chat.Publish(ctx, []byte(hello)); err != nil {
				t.Fatal(err)
			}
			for ev := range events(t, said) {
				if ev.Event != "message" {
					continue
				}
				id := info.ID.String()
				if ev.Text != hello || ev.From != id || ev.Nick != id[len(id)-8:] {
					t.Errorf("plexus chat shows %+v", ev)
				}
				break
			}

			// From plexus to the room.
			const line = "grüß dich \U0001f44b"
			if _, err := io.WriteString(in, line+"\n"); err != nil {
				t.Fatal(err)
			}
			m, err := next(ctx, room.lines, alice)
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Data) != line {
				t.Errorf("the room got %q, want %q", m.Data, line)
			}
			if !slices.Contains(room.ps.ListPeers(chatTopic), alice) {
				t.Error("plexus chat is not among the room's peers")
			}

			// Where plexus is, as browsers hear it: message Peer{bytes publicKey = 1; repeated
			// bytes addrs = 2}.
			m, err = next(ctx, room.meetings, alice)
			if err != nil {
				t.Fatal(err)
			}
			key, err := alice.ExtractPublicKey()
			if err != nil {
				t.Fatal(err)
			}
			raw, err := crypto.MarshalPublicKey(key)
			if err != nil {
				t.Fatal(err)
			}
			if want := append([]byte{1<<3 | 2, byte(len(raw))}, raw...); !bytes.HasPrefix(m.Data, want) || len(m.Data) == len(want) {
				t.Errorf("the beacon is % x, which has to begin with % x", m.Data, want)
			}
		})
	}
}

// next returns the next message of an author.
func next(ctx context.Context, sub *pubsub.Subscription, from peer.ID) (*pubsub.Message, error) {
	for {
		m, err := sub.Next(ctx)
		if err != nil || m.GetFrom() == from {
			return m, err
		}
	}
}

// A chatEvent is a line of plexus chat --json.
type chatEvent struct{ Event, Peer, From, Nick, Text string }

// events yields what plexus chat says. It fails the test where that ends.
func events(t *testing.T, s *bufio.Scanner) func(yield func(chatEvent) bool) {
	return func(yield func(chatEvent) bool) {
		for s.Scan() {
			var ev chatEvent
			if err := json.Unmarshal(s.Bytes(), &ev); err != nil {
				t.Fatalf("plexus chat says %q: %v", s.Bytes(), err)
			}
			if !yield(ev) {
				return
			}
		}
		t.Fatalf("plexus chat has ended: %v", s.Err())
	}
}

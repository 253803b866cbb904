package identify

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/transport/memory"
)

func nothing(context.Context, *plexus.Stream) error { return nil }

// listening serves pushes and keeps them.
func listening(h *plexus.Host, pushes chan<- message) {
	answering(h, frames(message{protocols: protocols(PushProtocol), agent: []byte("y")}))
	h.Handle(PushProtocol, func(_ context.Context, s *plexus.Stream) error {
		sc := newScratch().(*scratch)
		err := sc.read(s)
		pushes <- sc.m
		return err
	})
}

// "When a peer's basic information changes, for example, because they've obtained
// a new public listen address, they can use identify/push to inform others"
func TestPush(t *testing.T) {
	hosts(t, func(t *testing.T, x, y *plexus.Host) {
		Start(x, Config{})
		Start(y, Config{})
		_, c := connect(t, x, y)
		settle()

		x.Handle("/new", nothing)
		time.Sleep(2 * pushDelay)
		id := c.Identity()
		if want := []string{Protocol, PushProtocol, "/new"}; !slices.Equal(id.Protocols, want) {
			t.Errorf("x speaks %q, want %q", id.Protocols, want)
		}
		if !id.Signed || id.Observed == nil {
			t.Errorf("x is %+v", id)
		}

		x.Announce(func(as []ma.Multiaddr) []ma.Multiaddr { return append(as, addr3) })
		time.Sleep(2 * pushDelay)
		if id := c.Identity(); !equalAddrs(id.Addrs, x.Addrs()) || !slices.ContainsFunc(id.Addrs, addr3.Equal) || !id.Signed {
			t.Errorf("x is at %v, want %v", id.Addrs, x.Addrs())
		}
		if !slices.ContainsFunc(y.Peers().Addrs(x.ID()), addr3.Equal) {
			t.Error("the new address is not known for dialing")
		}

		x.Announce(func(as []ma.Multiaddr) []ma.Multiaddr { return nil })
		time.Sleep(2 * pushDelay)
		if id := c.Identity(); len(id.Addrs) != 0 {
			t.Errorf("x is at %v, want nowhere", id.Addrs)
		}
	})
}

func TestPushesAreFew(t *testing.T) {
	hosts(t, func(t *testing.T, x, y *plexus.Host) {
		pushes := make(chan message, 100)
		listening(y, pushes)
		Start(x, Config{})
		connect(t, x, y)
		connect(t, x, y) // a peer is told once, however often it is connected
		settle()
		for i := range 50 {
			x.Handle(fmt.Sprint("/", i), nothing)
		}
		begin := time.Now()
		m := <-pushes
		if d := time.Since(begin); d < pushDelay || d > 2*pushDelay {
			t.Errorf("pushed after %v", d)
		}
		if len(m.protocols) != 52 || len(m.record) == 0 || m.observed != nil {
			t.Errorf("pushed %d protocols, a record of %d bytes, observed %x", len(m.protocols), len(m.record), m.observed)
		}
		first, err := peer.OpenRecord(m.record)
		if err != nil || first.ID != x.ID() {
			t.Errorf("record of %s, %v", first.ID, err)
		}

		x.Announce(nil) // changes nothing
		x.Handle("/gone", nothing)
		x.Unhandle("/gone")
		time.Sleep(time.Minute)
		if len(pushes) != 0 {
			t.Errorf("%d pushes of nothing new", len(pushes))
		}

		x.Handle("/new", nothing)
		again, _ := peer.OpenRecord((<-pushes).record)
		if again.Seq != first.Seq {
			t.Errorf("the record was signed anew for a protocol")
		}
		x.Announce(func(as []ma.Multiaddr) []ma.Multiaddr { return append(as, addr3) })
		again, _ = peer.OpenRecord((<-pushes).record)
		if again.Seq <= first.Seq || len(again.Addrs) != len(first.Addrs)+1 {
			t.Errorf("record %d after %d, of %v", again.Seq, first.Seq, again.Addrs)
		}
	})
}

// A peer that asked before the change, and whose own answer came after it.
func TestCatchUp(t *testing.T) {
	hosts(t, func(t *testing.T, x, y *plexus.Host) {
		pushes := make(chan message, 100)
		slow := make(chan bool)
		y.Handle(Protocol, func(_ context.Context, s *plexus.Stream) error {
			<-slow
			_, err := s.Write(frames(message{protocols: protocols(PushProtocol)}))
			return err
		})
		y.Handle(PushProtocol, func(_ context.Context, s *plexus.Stream) error {
			sc := newScratch().(*scratch)
			err := sc.read(s)
			pushes <- sc.m
			return err
		})
		Start(x, Config{})
		_, cy := connect(t, x, y)
		s, err := cy.Open(t.Context(), Protocol)
		if err == nil {
			err = newScratch().(*scratch).read(s)
		}
		if err != nil {
			t.Fatal(err)
		}
		x.Handle("/new", nothing)
		time.Sleep(2 * time.Second)
		if len(pushes) != 0 {
			t.Error("pushed to one of whom nothing is known")
		}
		close(slow)
		settle()
		if len(pushes) != 1 {
			t.Errorf("%d pushes, want 1", len(pushes))
		}
	})
}

// A peer that has not asked yet will hear it when it does.
func TestNothingToCatchUp(t *testing.T) {
	hosts(t, func(t *testing.T, x, y *plexus.Host) {
		pushes := make(chan message, 100)
		listening(y, pushes)
		Start(x, Config{})
		connect(t, x, y)
		time.Sleep(time.Minute)
		if len(pushes) != 0 {
			t.Errorf("%d pushes, though nothing changed", len(pushes))
		}
	})
}

func TestManyPushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2*pushParallel + 1
		var net memory.Network
		x := plexustest.Host(t, &net)
		Start(x, Config{})
		pushes := make(chan message, n)
		for range n {
			y := plexustest.Host(t, &net)
			listening(y, pushes)
			connect(t, x, y)
		}
		x.Handle("/new", nothing)
		time.Sleep(2 * pushDelay)
		if len(pushes) != n {
			t.Errorf("%d of %d peers were told", len(pushes), n)
		}
	})
}

// What a push changes, and what it does not.
func TestReceive(t *testing.T) {
	const seq = 100
	base := func(key peer.PrivKey) message {
		return message{
			agent: []byte("y/1"), version: []byte("/net/1"), protocols: protocols("/a", "/b"),
			observed: addr3.Bytes(), record: record(t, key, seq, addr1),
		}
	}
	same := plexus.Identity{
		Agent: "y/1", Version: "/net/1", Protocols: []string{"/a", "/b"},
		Observed: addr3, Addrs: []ma.Multiaddr{addr1}, Signed: true,
	}
	but := func(f func(*plexus.Identity)) plexus.Identity {
		id := same
		f(&id)
		return id
	}
	for _, tt := range []struct {
		name string
		push func(key peer.PrivKey) message
		want plexus.Identity
	}{
		// "missing fields should be ignored, as peers may choose to send partial
		// updates containing only the fields whose values have changed"
		{"nothing", func(peer.PrivKey) message { return message{} }, same},
		{"an agent", func(peer.PrivKey) message { return message{agent: []byte("y/2")} },
			but(func(id *plexus.Identity) { id.Agent = "y/2" })},
		{"protocols", func(peer.PrivKey) message { return message{protocols: protocols("/c")} },
			but(func(id *plexus.Identity) { id.Protocols = []string{"/c"} })},
		{"observed", func(peer.PrivKey) message { return message{observed: addr2.Bytes()} },
			but(func(id *plexus.Identity) { id.Observed = addr2 })},
		{"a newer record", func(key peer.PrivKey) message { return message{record: record(t, key, seq+1, addr2)} },
			but(func(id *plexus.Identity) { id.Addrs = []ma.Multiaddr{addr2} })},
		{"the same record", func(key peer.PrivKey) message {
			return message{agent: []byte("y/2"), record: record(t, key, seq, addr1)}
		}, but(func(id *plexus.Identity) { id.Agent = "y/2" })},
		{"an older record", func(key peer.PrivKey) message {
			return message{agent: []byte("y/2"), record: record(t, key, seq-1, addr2)}
		}, same},
		{"unsigned addresses", func(peer.PrivKey) message { return message{addrs: raw(addr2)} },
			but(func(id *plexus.Identity) { id.Addrs, id.Signed = []ma.Multiaddr{addr2}, false })},
		{"another's record", func(peer.PrivKey) message { return message{record: record(t, newKey(t), seq+1, addr2)} }, same},
		{"another's key", func(peer.PrivKey) message {
			return message{agent: []byte("y/2"), key: newKey(t).Public().Bytes()}
		}, same},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hosts(t, func(t *testing.T, x, y *plexus.Host) {
				answering(y, frames(base(y.Key())))
				Start(x, Config{})
				c, cy := connect(t, x, y)
				other, _ := connect(t, x, y)
				settle()
				s := push(t, cy, frames(tt.push(y.Key())))
				settle()
				for _, c := range []*plexus.Conn{c, other} {
					want, got := tt.want, c.Identity()
					if c == other {
						want.Observed = same.Observed // said by another connection
					}
					if got.Agent != want.Agent || got.Version != want.Version || !slices.Equal(got.Protocols, want.Protocols) ||
						!got.Observed.Equal(want.Observed) || !equalAddrs(got.Addrs, want.Addrs) || got.Signed != want.Signed {
						t.Errorf("got %+v, want %+v", got, want)
					}
				}
				s.Close()
				settle()
				if n := c.Stats().Streams + other.Stats().Streams; n != 0 {
					t.Errorf("%d streams are left", n)
				}
			})
		})
	}
}

// A push that comes before the answer waits for it.
func TestEarlyPush(t *testing.T) {
	for _, late := range []time.Duration{time.Second, 2 * timeout} {
		t.Run(late.String(), func(t *testing.T) {
			hosts(t, func(t *testing.T, x, y *plexus.Host) {
				y.Handle(Protocol, func(_ context.Context, s *plexus.Stream) error {
					time.Sleep(late)
					_, err := s.Write(frames(message{agent: []byte("answer"), protocols: protocols("/answer")}))
					return err
				})
				Start(x, Config{})
				c, cy := connect(t, x, y)
				push(t, cy, frames(message{agent: []byte("push")}))
				time.Sleep(late / 2)
				if late < timeout && c.Identity() != nil {
					t.Errorf("half an identity: %+v", c.Identity())
				}
				time.Sleep(late)
				id := c.Identity()
				if id == nil || id.Agent != "push" {
					t.Fatalf("got %+v", id)
				}
				if got := len(id.Protocols); got != 1 && late < timeout {
					t.Errorf("the push replaced the answer: %+v", id)
				}
			})
		})
	}
}

func TestPushBounds(t *testing.T) {
	hosts(t, func(t *testing.T, x, y *plexus.Host) {
		answering(y, frames(message{agent: []byte("y")}))
		Start(x, Config{})
		c, cy := connect(t, x, y)
		settle()
		one := func(i int) bool { // whether it is taken
			s := push(t, cy, frames(message{agent: fmt.Append(nil, i)}))
			return !isReset(s)
		}
		for i := range pushBurst {
			if !one(i) {
				t.Fatalf("push %d was refused", i)
			}
		}
		if one(99) {
			t.Errorf("push %d was taken", pushBurst)
		}
		if id := c.Identity(); id.Agent != fmt.Sprint(pushBurst-1) {
			t.Errorf("got agent %s", id.Agent)
		}
		time.Sleep(pushEvery)
		if !one(100) || one(101) {
			t.Errorf("after %v: not one push was taken, but none or two", pushEvery)
		}
		time.Sleep(time.Hour)

		// Silence, endlessness and nonsense cost their stream.
		for name, b := range map[string][]byte{"silence": nil, "half": {9}} {
			s, _ := cy.Open(t.Context(), PushProtocol)
			s.Write(b)
			begin := time.Now()
			s.Write(b) // the opening went with the first
			if !isReset(s) {
				t.Errorf("%s was not reset", name)
			}
			if d := time.Since(begin).Round(time.Second); d != timeout {
				t.Errorf("%s was reset after %v, want %v", name, d, timeout)
			}
		}
		if s := push(t, cy, []byte{1, 0xff}); !isReset(s) {
			t.Error("nonsense was taken")
		}
	})
}

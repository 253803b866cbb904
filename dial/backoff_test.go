package dial

import (
	"fmt"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
)

func TestBackoff(t *testing.T) {
	var b Backoff
	p, q := peer.ID("p"), peer.ID("q")
	a := ma.StringCast("/ip4/192.0.2.1/tcp/1")
	a2 := ma.StringCast("/ip4/192.0.2.1/tcp/2")
	now := time.Unix(1e9, 0)
	if w := b.Wait(now, p, a); w != 0 {
		t.Fatal(w)
	}
	for n := range 30 {
		b.Failed(now, p, a)
		want := min(5*time.Minute, time.Duration(5+n*n)*time.Second)
		if w := b.Wait(now, p, a); w != want {
			t.Fatalf("after %d failures wait %v, want %v", n+1, w, want)
		}
		if b.Wait(now, p, a2) != 0 || b.Wait(now, q, a) != 0 {
			t.Fatal("another address waits too")
		}
		b.Failed(now.Add(want-1), p, a) // somebody did not heed it
		if w := b.Wait(now.Add(want-1), p, a); w != 1 {
			t.Fatalf("a failure amid the wait makes it %v", w)
		}
		if now = now.Add(want); b.Wait(now, p, a) != 0 {
			t.Fatal("waits too long")
		}
	}
	// All is forgiven in five minutes.
	now = now.Add(backoffMax + 1)
	b.Failed(now, p, a)
	if w := b.Wait(now, p, a); w != backoffBase {
		t.Errorf("long after, wait %v", w)
	}
	b.Failed(now, p, a2)
	b.Failed(now, q, a)
	b.Succeeded(p, a)
	if b.Wait(now, p, a) != 0 || b.Wait(now, p, a2) == 0 || b.Wait(now, q, a) == 0 {
		t.Error("a success clears its address")
	}
	b.Failed(now, p, a)
	b.Clear(p)
	if b.Wait(now, p, a) != 0 || b.Wait(now, p, a2) != 0 || b.Wait(now, q, a) == 0 || len(b.peers) != 1 || b.lru.Len() != 1 {
		t.Error("Clear clears a peer")
	}
	b.Clear("")
	if b.Wait(now, q, a) != 0 || b.lru.Len() != 0 {
		t.Error("Clear clears all")
	}
	b.Succeeded(p, a)
	b.Clear(p)
}

func TestBackoffBound(t *testing.T) {
	var b Backoff
	a := ma.StringCast("/ip4/192.0.2.1/tcp/1")
	now := time.Unix(1e9, 0)
	id := func(i int) peer.ID { return peer.ID(fmt.Sprint(i)) }
	b.Failed(now, id(0), a)
	for i := range backoffSize {
		b.Failed(now, id(i), a)
	}
	b.Failed(now.Add(backoffBase), id(0), a) // now 1 is the oldest
	b.Failed(now, "new", a)
	if n := b.lru.Len(); n != backoffSize || len(b.peers) != backoffSize {
		t.Errorf("%d addresses of %d peers", n, len(b.peers))
	}
	if b.Wait(now, id(0), a) == 0 || b.Wait(now, id(1), a) != 0 || b.Wait(now, id(2), a) == 0 || b.Wait(now, "new", a) == 0 {
		t.Error("the oldest must go")
	}
}

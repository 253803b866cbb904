package dial

import (
	"container/list"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
)

// How long to leave an address alone after it failed n times in a row:
// backoffBase + (n-1)² × backoffStep, at most backoffMax.
const (
	backoffBase = 5 * time.Second
	backoffStep = time.Second
	backoffMax  = 5 * time.Minute
)

// backoffSize is how many addresses a Backoff remembers.
const backoffSize = 4096

// Backoff remembers which addresses of which peers failed, so that they are not
// tried over and over: 5 s after the first failure, then 6, 9, 14 …, up to five
// minutes. It remembers the 4096 that failed last, and starts anew with one that
// was left alone for five minutes more. The zero value is ready. All methods may be
// called concurrently.
//
// It only gives advice: a dial that a person asked for need not heed it.
type Backoff struct {
	mu    sync.Mutex
	peers map[peer.ID]map[string]*list.Element // by address
	lru   list.List                            // of *failing; the last failure in front
}

type failing struct {
	peer  peer.ID
	addr  string // in bytes
	fails int    // in a row
	until time.Time
}

// Wait returns how long p should not be tried at a; 0 if it may be now.
func (b *Backoff) Wait(now time.Time, p peer.ID, a ma.Multiaddr) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	el := b.peers[p][string(a.Bytes())]
	if el == nil {
		return 0
	}
	return max(0, el.Value.(*failing).until.Sub(now))
}

// Failed notes that an attempt to reach p at a failed. An attempt that was made
// though Wait advised against it changes nothing.
func (b *Backoff) Failed(now time.Time, p peer.ID, a ma.Multiaddr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := string(a.Bytes())
	el := b.peers[p][key]
	if el != nil {
		f := el.Value.(*failing)
		if now.Before(f.until) {
			return
		}
		if now.Sub(f.until) > backoffMax {
			f.fails = 0 // long ago
		}
		b.lru.MoveToFront(el)
	} else {
		if b.lru.Len() >= backoffSize {
			b.removeLocked(b.lru.Back())
		}
		if b.peers == nil {
			b.peers = make(map[peer.ID]map[string]*list.Element)
		}
		if b.peers[p] == nil {
			b.peers[p] = make(map[string]*list.Element)
		}
		el = b.lru.PushFront(&failing{peer: p, addr: key})
		b.peers[p][key] = el
	}
	f := el.Value.(*failing)
	f.until = now.Add(min(backoffMax, backoffBase+time.Duration(f.fails*f.fails)*backoffStep))
	if f.fails < 100 {
		f.fails++ // no further than it matters
	}
}

// Succeeded forgets that a failed.
func (b *Backoff) Succeeded(p peer.ID, a ma.Multiaddr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if el := b.peers[p][string(a.Bytes())]; el != nil {
		b.removeLocked(el)
	}
}

// Clear forgets all failures of p, and those of every peer if p is "".
func (b *Backoff) Clear(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p == "" {
		b.peers = nil
		b.lru.Init()
		return
	}
	for _, el := range b.peers[p] {
		b.removeLocked(el)
	}
}

func (b *Backoff) removeLocked(el *list.Element) {
	f := b.lru.Remove(el).(*failing)
	delete(b.peers[f.peer], f.addr)
	if len(b.peers[f.peer]) == 0 {
		delete(b.peers, f.peer)
	}
}

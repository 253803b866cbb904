package plexus

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
)

// An Event is something that happened to a host: one of the types below.
type Event interface{ event() }

type (
	// Connected means that a connection is ready for streams.
	Connected struct{ Conn *Conn }

	// Disconnected means that a connection ended, and why.
	Disconnected struct {
		Conn *Conn
		Err  error
	}

	// Identified means that a peer has told, or changed, who it is; see
	// [Conn.Identity].
	Identified struct{ Conn *Conn }

	// AddrsChanged means that [Host.Addrs] changed.
	AddrsChanged struct{}

	// ProtocolsChanged means that [Host.Protocols] changed.
	ProtocolsChanged struct{}

	// Dialed tells how a dial went, every address of it. Conn is nil where it failed.
	Dialed struct {
		Peer     peer.ID
		Resolve  time.Duration // spent on names
		Attempts []Attempt
		Spared   []ma.Multiaddr // whose turn had not come when it ended
		Conn     *Conn
		Err      error
	}

	// ListenFailed means that an address is no longer listened on.
	ListenFailed struct {
		Addr ma.Multiaddr
		Err  error
	}

	// Lost means that a watcher was too slow, and how many events it missed here.
	Lost struct{ Events int }
)

func (Connected) event()        {}
func (Disconnected) event()     {}
func (Identified) event()       {}
func (AddrsChanged) event()     {}
func (ProtocolsChanged) event() {}
func (Dialed) event()           {}
func (ListenFailed) event()     {}
func (Lost) event()             {}

// watchQueue is how many events wait for a watcher before it loses some.
const watchQueue = 1024

// events hands what happens to those who asked. The zero value is ready.
type events struct {
	mu     sync.Mutex
	hooks  map[int]func(Event)
	nextID int
}

// Notify calls f with every event from now on, in the goroutine that made it
// happen: f must be quick and must not call back into what it is told about.
// Events of one connection come in order. stop ends it.
func (h *Host) Notify(f func(Event)) (stop func()) {
	e := &h.events
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hooks == nil {
		e.hooks = make(map[int]func(Event))
	}
	id := e.nextID
	e.nextID++
	e.hooks[id] = f
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.hooks, id)
	}
}

func (h *Host) emit(ev Event) {
	h.events.mu.Lock()
	hooks := slices.Collect(maps.Values(h.events.hooks)) // a hook may come and go while others run
	h.events.mu.Unlock()
	for _, f := range hooks {
		f(ev)
	}
}

// Watch yields every event from its call on until ctx ends, the host closes or
// the loop is left. A loop that falls behind loses events and is told so by
// [Lost]; it never slows the host or other watchers.
func (h *Host) Watch(ctx context.Context) iter.Seq[Event] {
	var (
		mu    sync.Mutex
		queue []Event
		lost  int
		wake  = make(chan struct{}, 1)
	)
	stop := h.Notify(func(ev Event) {
		mu.Lock()
		if len(queue) < watchQueue {
			queue = append(queue, ev)
		} else {
			lost++
		}
		mu.Unlock()
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	context.AfterFunc(ctx, stop) // also when the sequence is never ranged over
	return func(yield func(Event) bool) {
		defer stop()
		for {
			mu.Lock()
			evs, n := queue, lost
			queue, lost = nil, 0
			mu.Unlock()
			for _, ev := range evs {
				if !yield(ev) {
					return
				}
			}
			if n > 0 && !yield(Lost{n}) {
				return
			}
			select {
			case <-wake:
			case <-ctx.Done():
				return
			case <-h.ctx.Done():
				return
			}
		}
	}
}

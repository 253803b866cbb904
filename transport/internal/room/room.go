// Package room holds connections that have not said what they want.
package room

import (
	"net"
	"slices"
	"sync"
)

// Room is a bounded number of connections. A new one makes the oldest leave, so that
// silent ones keep nobody out: who wants to come in needs to be quick only while
// there is a crowd. The methods may be called concurrently.
type Room struct {
	Max int // fixed; 0: nobody stays

	mu    sync.Mutex
	conns []net.Conn // oldest first
}

// Add lets c in, and closes the oldest connection if there are too many.
func (r *Room) Add(c net.Conn) {
	r.mu.Lock()
	r.conns = append(r.conns, c)
	var oldest net.Conn
	if len(r.conns) > r.Max {
		oldest = r.conns[0]
		r.conns = slices.Delete(r.conns, 0, 1)
	}
	r.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
}

// Remove lets c out. It is false if c was not there, as after it was closed.
func (r *Room) Remove(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.conns, c)
	if i < 0 {
		return false
	}
	r.conns = slices.Delete(r.conns, i, i+1)
	return true
}

// Close closes all connections.
func (r *Room) Close() {
	r.mu.Lock()
	conns := r.conns
	r.conns = nil
	r.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// Package slots bounds how many things run at the same time, for each key and
// altogether. The services keep their bounds with it on what one peer, and all
// peers together, may have them do.
package slots

import "sync"

// Slots counts what runs. Its methods may be called concurrently; the zero
// value has no room for anything.
type Slots[K comparable] struct {
	Each int // room for one key
	All  int // room for all keys together

	mu  sync.Mutex
	by  map[K]int // only keys for which something runs
	all int
}

// Take takes a slot for k. It returns false, and takes nothing, if there is none.
func (s *Slots[K]) Take(k K) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= s.All || s.by[k] >= s.Each {
		return false
	}
	if s.by == nil {
		s.by = make(map[K]int)
	}
	s.by[k]++
	s.all++
	return true
}

// Free gives back a slot that was taken for k.
func (s *Slots[K]) Free(k K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.by[k]--; s.by[k] == 0 {
		delete(s.by, k)
	}
}

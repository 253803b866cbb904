// Package link has what record layers share: turns at a connection, and buffers to
// borrow.
package link

import "sync"

// A Turn is a lock for the time of a read or write on a connection. Other than
// with a sync.Mutex, waiting for it lets time pass in a synctest bubble, where the
// holder may be waiting for just that.
type Turn chan struct{}

// NewTurn returns a free turn.
func NewTurn() Turn { return make(Turn, 1) }

// Lock waits for the turn and takes it.
func (t Turn) Lock() { t <- struct{}{} }

// TryLock takes the turn if it is free, and tells whether it did.
func (t Turn) TryLock() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

// Unlock ends the turn.
func (t Turn) Unlock() { <-t }

// The sizes of buffers, in bytes. Each is a multiple of the runtime's pages or a
// power of two, so that nothing is lost to rounding.
const (
	Small = 4 << 10   // a handshake message, a few small frames
	Large = 72 << 10  // one record of 64 KiB with what is around it
	Bulk  = 128 << 10 // what is read ahead
	Batch = 264 << 10 // four records of 64 KiB
)

var (
	sizes = [...]int{Small, Large, Bulk, Batch}
	pools [len(sizes)]sync.Pool
)

// Borrow returns a buffer of n bytes or more, whose length is its size. n must not
// be larger than Batch.
func Borrow(n int) *[]byte {
	i := 0
	for sizes[i] < n {
		i++
	}
	if b, ok := pools[i].Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, sizes[i])
	return &b
}

// GiveBack ends the use of a buffer that was borrowed.
func GiveBack(b *[]byte) {
	for i, size := range sizes {
		if size == len(*b) {
			pools[i].Put(b)
		}
	}
}

package session

import "sync"

// Bytes that wait for their reader lie in chunks, however small the frames were
// that brought them. They are charged at what the chunks cost: a stream that holds
// one byte is charged smallChunk.
const (
	smallChunk = 1 << 10
	largeChunk = 16 << 10
)

type chunk struct {
	next *chunk
	b    []byte
	r, w int // read and written so far
}

var smallChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, smallChunk)} }}
var largeChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, largeChunk)} }}

// buffer is a queue of bytes. The zero value is empty.
type buffer struct {
	first, last *chunk
	n           int // bytes
	held        int // bytes charged
}

// room returns how many bytes add takes before it needs another chunk.
func (q *buffer) room() int {
	if q.last == nil {
		return 0
	}
	return len(q.last.b) - q.last.w
}

// grow tells what the next chunk costs, if n bytes are to be added.
func (q *buffer) grow(n int) int {
	if q.first == nil && n <= smallChunk {
		return smallChunk
	}
	return largeChunk
}

// add appends as much of b as one chunk takes and returns how much that was.
func (q *buffer) add(b []byte) int {
	if q.room() == 0 {
		var c *chunk
		if q.grow(len(b)) == smallChunk {
			c = smallChunks.Get().(*chunk)
		} else {
			c = largeChunks.Get().(*chunk)
		}
		if q.last == nil {
			q.first = c
		} else {
			q.last.next = c
		}
		q.last = c
		q.held += len(c.b)
	}
	c := q.last
	n := copy(c.b[c.w:], b)
	c.w += n
	q.n += n
	return n
}

// read moves bytes into p and returns how many.
func (q *buffer) read(p []byte) int {
	total := 0
	for q.n > 0 && total < len(p) {
		c := q.first
		n := copy(p[total:], c.b[c.r:c.w])
		c.r += n
		q.n -= n
		total += n
		if c.r == c.w {
			q.drop()
		}
	}
	return total
}

// drop gives the first chunk back.
func (q *buffer) drop() {
	c := q.first
	q.held -= len(c.b)
	q.first = c.next
	if q.first == nil {
		q.last = nil
	}
	c.next, c.r, c.w = nil, 0, 0
	if len(c.b) == smallChunk {
		smallChunks.Put(c)
	} else {
		largeChunks.Put(c)
	}
}

// clear gives everything back and returns how many bytes that were.
func (q *buffer) clear() int {
	n := q.n
	for q.first != nil {
		q.drop()
	}
	q.n = 0
	return n
}

// fifo is a queue. The zero value is empty.
type fifo[T any] struct {
	ring []T // its length is a power of two
	head int
	n    int
}

func (q *fifo[T]) push(v T) {
	if q.n == len(q.ring) {
		ring := make([]T, max(4, 2*len(q.ring)))
		for i := range q.n {
			ring[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
		}
		q.ring, q.head = ring, 0
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = v
	q.n++
}

func (q *fifo[T]) pop() T {
	var zero T
	v := q.ring[q.head]
	q.ring[q.head] = zero
	q.head = (q.head + 1) & (len(q.ring) - 1)
	if q.n--; q.n == 0 && len(q.ring) > 64 {
		*q = fifo[T]{} // after a burst
	}
	return v
}

// A list links streams. A stream can be in one list of each kind.
type list struct {
	kind        int
	first, last *Stream
	n           int
}

type links struct{ prev, next *Stream }

// The kinds of lists.
const (
	inAll = iota
	inWaiters
	kinds
)

func (l *list) push(st *Stream) {
	st.links[l.kind] = links{prev: l.last}
	if l.last != nil {
		l.last.links[l.kind].next = st
	} else {
		l.first = st
	}
	l.last = st
	l.n++
}

func (l *list) remove(st *Stream) {
	at := &st.links[l.kind]
	if at.prev != nil {
		at.prev.links[l.kind].next = at.next
	} else {
		l.first = at.next
	}
	if at.next != nil {
		at.next.links[l.kind].prev = at.prev
	} else {
		l.last = at.prev
	}
	*at = links{}
	l.n--
}

// next returns the stream after st.
func (l *list) next(st *Stream) *Stream { return st.links[l.kind].next }

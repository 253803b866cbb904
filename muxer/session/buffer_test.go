package session

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// fill adds all of b.
func (q *buffer) fill(b []byte) {
	for len(b) > 0 {
		b = b[q.add(b):]
	}
}

func TestBuffer(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 0))
	var q buffer
	var model bytes.Buffer
	for range 10000 {
		if rnd.IntN(3) > 0 {
			b := make([]byte, rnd.IntN(1<<rnd.IntN(17)))
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			q.fill(b)
			model.Write(b)
		} else {
			p, want := make([]byte, rnd.IntN(1<<rnd.IntN(18))), make([]byte, 0)
			want = append(want, model.Next(len(p))...)
			if n := q.read(p); !bytes.Equal(p[:n], want) {
				t.Fatalf("read %d bytes, want %d, or others", n, len(want))
			}
		}
		if q.n != model.Len() || q.n > q.held || q.n == 0 && q.held != 0 {
			t.Fatalf("%d bytes cost %d, want %d bytes", q.n, q.held, model.Len())
		}
		if rnd.IntN(1000) == 0 {
			if n := q.clear(); n != model.Len() || q != (buffer{}) {
				t.Fatalf("clear: %d, want %d; %+v is left", n, model.Len(), q)
			}
			model.Reset()
		}
	}
}

// What a buffer costs is accounted for, and little more than what it holds.
func TestBufferCost(t *testing.T) {
	for _, c := range []struct{ bytes, held int }{
		{1, smallChunk}, {1 << 10, smallChunk}, {1<<10 + 1, smallChunk + largeChunk}, {256 << 10, 256<<10 + smallChunk},
	} {
		var q buffer
		for range c.bytes {
			q.add([]byte{1})
		}
		if q.held != c.held {
			t.Errorf("%d frames of one byte cost %d, want %d", c.bytes, q.held, c.held)
		}
	}
	var q buffer
	if q.fill(make([]byte, 2000)); q.held != largeChunk {
		t.Errorf("2000 bytes at once cost %d, want %d", q.held, largeChunk)
	}
}

func TestFIFO(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 0))
	var q fifo[int]
	var model []int
	for i := range 10000 {
		if rnd.IntN(1000) < 400+200*(i/3000%2) || len(model) == 0 {
			q.push(i)
			model = append(model, i)
		} else {
			if got := q.pop(); got != model[0] {
				t.Fatalf("got %d, want %d", got, model[0])
			}
			model = model[1:]
		}
		if q.n != len(model) || q.n == 0 && len(q.ring) > 64 {
			t.Fatalf("%d elements in %d places, want %d", q.n, len(q.ring), len(model))
		}
	}
}

func TestList(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 0))
	l := list{kind: inWaiters}
	var model []*Stream
	for range 1000 {
		if rnd.IntN(2) == 0 || len(model) == 0 {
			st := new(Stream)
			l.push(st)
			model = append(model, st)
		} else {
			i := rnd.IntN(len(model))
			l.remove(model[i])
			model = slices.Delete(model, i, i+1)
		}
		var got []*Stream
		for st := l.first; st != nil; st = l.next(st) {
			got = append(got, st)
		}
		if !slices.Equal(got, model) || l.n != len(model) {
			t.Fatalf("%d streams, counted as %d; want %d, or others", len(got), l.n, len(model))
		}
	}
}

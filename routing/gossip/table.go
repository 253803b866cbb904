package gossip

import (
	"container/list"

	"github.com/plexus-p2p/plexus/peer"
)

// A table is a map that others fill, and that has bounds: so many entries, and of those
// that one source brought at most a share. The one that was touched longest ago goes
// first. It has no lock.
type table[K comparable, V any] struct {
	max, share int
	dropped    func(K) // hears of what is evicted; may be nil

	by      map[K]*list.Element // of *entry
	order   list.List           // the longest untouched first
	sources map[peer.ID]int     // entries each
}

type entry[K comparable, V any] struct {
	key    K
	value  V
	source peer.ID
}

func newTable[K comparable, V any](max, share int) *table[K, V] {
	return &table[K, V]{max: max, share: share, by: make(map[K]*list.Element), sources: make(map[peer.ID]int)}
}

// get returns the value of k, or nil. It stays where it is until the next put.
func (t *table[K, V]) get(k K) *V {
	if e := t.by[k]; e != nil {
		return &e.Value.(*entry[K, V]).value
	}
	return nil
}

// touch returns the value of k, a zero one if there was none, and makes it the one
// that goes last. A new one counts for its source.
func (t *table[K, V]) touch(k K, source peer.ID) *V {
	if e := t.by[k]; e != nil {
		t.order.MoveToBack(e)
		return &e.Value.(*entry[K, V]).value
	}
	if t.sources[source] >= t.share {
		for e := t.order.Front(); e != nil; e = e.Next() {
			if x := e.Value.(*entry[K, V]); x.source == source {
				t.evict(x.key)
				break
			}
		}
	}
	if len(t.by) >= t.max {
		t.evict(t.order.Front().Value.(*entry[K, V]).key)
	}
	x := &entry[K, V]{key: k, source: source}
	t.by[k] = t.order.PushBack(x)
	t.sources[source]++
	return &x.value
}

func (t *table[K, V]) evict(k K) {
	e := t.by[k]
	source := e.Value.(*entry[K, V]).source
	if t.sources[source]--; t.sources[source] == 0 {
		delete(t.sources, source)
	}
	t.order.Remove(e)
	delete(t.by, k)
	if t.dropped != nil {
		t.dropped(k)
	}
}

// each calls f with all, the one that was touched last first, until f returns false. f may
// evict the one that it is called with.
func (t *table[K, V]) each(f func(K, *V) bool) {
	for e := t.order.Back(); e != nil; {
		x, prev := e.Value.(*entry[K, V]), e.Prev()
		if !f(x.key, &x.value) {
			return
		}
		e = prev
	}
}

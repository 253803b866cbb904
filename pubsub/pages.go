package pubsub

import (
	"cmp"
	"maps"
	"slices"

	"github.com/plexus-p2p/plexus/internal/pb"
)

// What deployed peers take in one RPC: rust 16 KiB of control messages and
// subscriptions, and 100 of the latter; js 512 IDs of IDONTWANT; go looks at 10.
const (
	maxPage         = 12 << 10
	maxPageDontWant = 10
	maxPageSubs     = 100
)

// pages are control messages that wait, each page for an RPC.
type pages struct {
	list  []page
	bytes int
}

type page struct {
	b        []byte // the content of a ControlMessage
	dontWant int    // IDs of IDONTWANT
}

// fit returns a page with room for n bytes and some IDs of IDONTWANT.
func (q *pages) fit(n, dontWant int) *page {
	if last := len(q.list) - 1; last >= 0 {
		if p := &q.list[last]; len(p.b)+n <= maxPage && p.dontWant+dontWant <= maxPageDontWant {
			return p
		}
	}
	q.list = append(q.list, page{})
	return &q.list[len(q.list)-1]
}

// put lets f append n bytes or less, with some IDs of IDONTWANT, to a page.
func (q *pages) put(n, dontWant int, f func(b []byte) []byte) {
	p := q.fit(n, dontWant)
	before := len(p.b)
	p.b = f(p.b)
	p.dontWant += dontWant
	q.bytes += len(p.b) - before
}

// addDontWant puts an IDONTWANT into pages.
func (q *pages) addDontWant(ids [][]byte) {
	split(ids, maxPage-16, maxPageDontWant, func(ids [][]byte, n int) {
		q.put(n+8, len(ids), func(b []byte) []byte { return appendIDs(b, 5, ids) })
	})
}

// add puts c into pages, all but its IDONTWANT.
func (q *pages) add(c *Control) {
	// What changes meshes comes before gossip.
	for _, t := range c.Graft {
		q.put(len(t)+8, 0, func(b []byte) []byte { return appendGraft(b, t) })
	}
	for _, pr := range c.Prune {
		n := len(pr.Topic) + 24
		for _, x := range pr.Peers {
			n += len(x.ID) + len(x.Record) + 12
		}
		q.put(n, 0, pr.append)
	}
	for _, h := range c.IHave {
		split(h.IDs, maxPage-len(h.Topic)-16, len(h.IDs), func(ids [][]byte, n int) {
			q.put(n+len(h.Topic)+16, 0, func(b []byte) []byte { return appendIHave(b, h.Topic, ids) })
		})
	}
	split(c.IWant, maxPage-16, len(c.IWant), func(ids [][]byte, n int) {
		q.put(n+8, 0, func(b []byte) []byte { return appendIDs(b, 2, ids) })
	})
	if c.Extensions != nil {
		q.put(16, 0, c.Extensions.append)
	}
}

// split calls f with parts of ids of so many bytes, and IDs, at most.
func split(ids [][]byte, bytes, most int, f func(ids [][]byte, bytes int)) {
	for len(ids) > 0 {
		n, size := 0, 0
		for n < len(ids) && n < most {
			s := len(ids[n]) + 4
			if n > 0 && size+s > bytes {
				break
			}
			n++
			size += s
		}
		f(ids[:n], size)
		ids = ids[n:]
	}
}

// take moves pages to b, as RPCs, until it has limit bytes.
func (q *pages) take(b []byte, limit int) []byte {
	n := 0
	for _, p := range q.list {
		if n > 0 && len(b)+len(p.b) > limit {
			break
		}
		n++
		var at, in int
		b, at = pb.BeginDelimited(b)
		b, in = pb.Begin(b, 3)
		b = append(b, p.b...)
		b = pb.End(pb.End(b, in), at)
		q.bytes -= len(p.b)
	}
	clear(q.list[:n])
	if q.list = q.list[n:]; len(q.list) == 0 {
		q.list = nil
	}
	return b
}

// appendSubs appends subscriptions as RPCs, with extensions in the first if there are
// any. If both are none, there is one empty RPC.
func appendSubs(b []byte, subs map[string]SubOpts, ext *Extensions) []byte {
	rest := slices.SortedFunc(maps.Values(subs), func(x, y SubOpts) int { return cmp.Compare(x.Topic, y.Topic) })
	for first := true; first || len(rest) > 0; first = false {
		rpc := RPC{}
		n := 0
		for size := 0; n < len(rest) && n < maxPageSubs && (n == 0 || size+len(rest[n].Topic) <= maxPage); n++ {
			size += len(rest[n].Topic) + 16
		}
		rpc.Subs, rest = rest[:n], rest[n:]
		if first {
			rpc.Control.Extensions = ext
		}
		var at int
		b, at = pb.BeginDelimited(b)
		b = pb.End(rpc.Append(b), at)
	}
	return b
}

package identify

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
)

var (
	errKey      = errors.New("identify: the peer tells another key than it has proved")
	errStale    = errors.New("identify: a push with an older record than the one in use")
	errMessages = fmt.Errorf("identify: more than %d messages", maxMessages)
)

// ask opens the one stream on which a peer is asked for its identity, and puts in
// place what it answers.
func (s *service) ask(ctx context.Context, c *plexus.Conn) error {
	st, err := c.Open(ctx, Protocol)
	if err != nil {
		return err
	}
	sc := s.scratches.Get().(*scratch)
	defer s.recycle(sc)
	st.SetDeadline(time.Now().Add(timeout))
	if err := sc.read(st); err != nil {
		st.Reset(plexus.CodeNone)
		return err
	}
	st.Close()
	return s.apply(c, &sc.m, false)
}

// scratch is what reading or writing one exchange takes. It is not held by
// connections, only by exchanges.
type scratch struct {
	r *bufio.Reader
	b []byte // the messages, one behind the other; m is made of parts of it
	m message
}

func newScratch() any {
	return &scratch{r: bufio.NewReaderSize(nil, 1<<10), b: make([]byte, 0, 2<<10)}
}

// read reads messages until the peer closes its end, and merges them.
func (sc *scratch) read(r io.Reader) error {
	sc.r.Reset(r)
	for n := 0; ; n++ {
		msg, err := pb.ReadDelimited(sc.r, maxMessage, sc.b[len(sc.b):])
		switch {
		case err == io.EOF && n > 0:
			return sc.m.parse(sc.b)
		case err == io.EOF:
			return io.ErrUnexpectedEOF // without a word
		case err != nil:
			return err
		case n == maxMessages:
			return errMessages
		}
		sc.b = append(sc.b, msg...) // onto itself, where it fitted
	}
}

// recycle gives a scratch back. Nothing may hold a part of it.
func (s *service) recycle(sc *scratch) {
	const usual = 16 << 10
	if cap(sc.b) > usual {
		return // an odd peer's; the next one's will be smaller
	}
	sc.r.Reset(nil)
	sc.b = sc.b[:0]
	sc.m.reset()
	s.scratches.Put(sc)
}

// apply puts in place what a peer said, in its answer or in a push.
func (s *service) apply(c *plexus.Conn, m *message, push bool) error {
	if len(m.key) > 0 && string(m.key) != string(c.Key().Bytes()) {
		return errKey
	}
	g := s.guest(c.Peer())
	if g == nil {
		return nil // gone
	}
	rec, signed := s.openRecord(c, m.record)
	record := bytes.Clone(m.record)

	g.mu.Lock()
	defer g.mu.Unlock()
	// A newer push has overtaken this one. An answer is taken as it is: a peer
	// may come back with its clock set back.
	if push && signed && rec.Seq < g.seq {
		return errStale
	}
	var addrs []ma.Multiaddr
	if signed {
		// "If the signedPeerRecord is present and the implementation supports
		// SignedEnvelope, it MUST use the data contained within it and ignore
		// duplicated fields present in the main identify message"
		g.seq = rec.Seq
		addrs = rec.Addrs
	} else {
		addrs = parseAddrs(m.addrs)
	}
	protocols := s.names.all(m.protocols)

	put := func(c *plexus.Conn, id plexus.Identity) {
		if push {
			// "missing fields should be ignored, as peers may choose to send
			// partial updates containing only the fields whose values have changed"
			if old := c.Identity(); old != nil {
				observed := id.Observed
				if id = *old; observed != nil {
					id.Observed = observed
				}
			}
		}
		if len(m.agent) > 0 {
			id.Agent = s.names.one(text(m.agent))
		}
		if len(m.version) > 0 {
			id.Version = s.names.one(text(m.version))
		}
		if len(protocols) > 0 {
			id.Protocols = protocols
		}
		if signed || len(addrs) > 0 {
			id.Addrs, id.Signed, id.Record = addrs, signed, nil
			if signed {
				id.Record = record
			}
		}
		s.remember(c, &id)
		c.SetIdentity(&id, nil)
	}
	// What a peer sees is about the connection by which it says so.
	put(c, plexus.Identity{Observed: parseAddr(m.observed)})
	if push {
		for _, other := range s.conns(g) {
			if other != c && other.Identity() != nil {
				put(other, plexus.Identity{})
			}
		}
	}
	return nil
}

// openRecord verifies a signed record. One that does not verify, or is another
// peer's, is as good as none: what the peer says beside it is worth what an
// unsigned word of it is worth.
func (s *service) openRecord(c *plexus.Conn, b []byte) (rec peer.Record, ok bool) {
	if len(b) == 0 {
		return rec, false
	}
	rec, err := peer.OpenRecord(b)
	if err == nil && rec.ID != c.Peer() {
		err = fmt.Errorf("record of %s", rec.ID)
	}
	if err != nil {
		s.log.Debug("signed record ignored", "peer", c.Peer(), "addr", c.RemoteAddr(), "err", err)
	}
	return rec, err == nil
}

// remember keeps a peer's addresses for dialing it later.
func (s *service) remember(c *plexus.Conn, id *plexus.Identity) {
	if addrs := dialable(id.Addrs, c.RemoteAddr()); len(addrs) > 0 {
		s.h.Peers().Add(peer.AddrInfo{ID: c.Peer(), Addrs: addrs}, plexus.TTLConnected)
	}
}

func parseAddrs(bs [][]byte) []ma.Multiaddr {
	if len(bs) == 0 {
		return nil
	}
	addrs := make([]ma.Multiaddr, 0, len(bs))
	for _, b := range bs {
		if a := parseAddr(b); a != nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// parseAddr returns nil for what is not an address, or is one of a kind that is
// not known here.
func parseAddr(b []byte) ma.Multiaddr {
	if len(b) == 0 {
		return nil
	}
	a, err := ma.NewMultiaddrBytes(b)
	if err != nil {
		return nil
	}
	return a
}

// dialable leaves out addresses that lead elsewhere from here: a peer that we
// know by a public address does not mean our loopback with its own.
func dialable(addrs []ma.Multiaddr, remote ma.Multiaddr) []ma.Multiaddr {
	from := scopeOf(remote)
	kept := make([]ma.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		if sc := scopeOf(a); sc == unknown || sc != nowhere && sc >= from {
			kept = append(kept, a)
		}
	}
	return kept
}

// scope is how far an address reaches. Farther is greater.
type scope int

const (
	unknown scope = iota // not an IP address: a name, a relay's peer ID, …
	nowhere
	machine
	site
	world
)

var shared = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598: between a carrier's NAT and its customers

func scopeOf(a ma.Multiaddr) scope {
	ip, _, ok := transport.IP(a)
	switch {
	case !ok:
		return unknown
	case ip.IsUnspecified() || ip.IsMulticast():
		return nowhere
	case ip.IsLoopback():
		return machine
	case ip.IsPrivate() || ip.IsLinkLocalUnicast() || shared.Contains(ip):
		return site
	}
	return world
}

// names keeps one copy of each string that peers repeat: there are few different
// protocol IDs and agents, and many connections. The zero value is ready.
type names struct {
	mu sync.Mutex
	m  map[string]string
}

// keepNames bounds the table. Peers that fill it with inventions of theirs cost
// the others the sharing, nothing more.
const keepNames = 2048

func (n *names) all(bs [][]byte) []string {
	if len(bs) == 0 {
		return nil
	}
	ss := make([]string, len(bs))
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, b := range bs {
		ss[i] = n.oneLocked(b)
	}
	return ss
}

func (n *names) one(b []byte) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.oneLocked(b)
}

func (n *names) oneLocked(b []byte) string {
	if s, ok := n.m[string(b)]; ok {
		return s
	}
	if n.m == nil || len(n.m) >= keepNames {
		n.m = make(map[string]string)
	}
	s := string(b)
	n.m[s] = s
	return s
}

package identify

import (
	"context"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
)

// lookEvery is how often the addresses are looked at again when somebody asks:
// a machine that moves to another network tells nobody.
const lookEvery = 5 * time.Second

// self is what the host tells of itself. It does not change: a change makes
// another one.
type self struct {
	gen       uint64 // counts them, from 1
	addrs     []ma.Multiaddr
	protocols []string
	record    []byte // signed; made anew only with other addresses
	first     []byte // see [message.frames]
	rest      []byte
}

// current is what the host tells now.
func (s *service) current() *self {
	s.making.Lock()
	defer s.making.Unlock()
	now := time.Now()
	if s.self != nil && !s.stale.Load() && now.Sub(s.looked) < lookEvery {
		return s.self
	}
	s.stale.Store(false) // before looking: what changes from now on is seen next time
	s.looked = now
	old := s.self
	s.self = s.make(old)
	if old != nil && s.self != old {
		s.schedule() // what no event has told, such as an interface that came up
	}
	return s.self
}

// make looks at the host. It returns old if nothing has changed.
func (s *service) make(old *self) *self {
	me := &self{gen: 1, addrs: tellable(s.h.Addrs()), protocols: s.h.Protocols()}
	sameAddrs := false
	if old != nil {
		sameAddrs = slices.EqualFunc(me.addrs, old.addrs, ma.Multiaddr.Equal)
		if sameAddrs && slices.Equal(me.protocols, old.protocols) {
			return old
		}
		me.gen = old.gen + 1
	}
	if sameAddrs {
		me.record = old.record
	} else {
		rec := peer.Record{ID: s.h.ID(), Seq: s.seq.Next(time.Now()), Addrs: me.addrs}
		var err error
		if me.record, err = rec.Seal(s.h.Key()); err != nil {
			s.log.Warn("own addresses not signed", "err", err) // by a key that cannot sign
		}
	}
	m := message{
		key:     s.h.Key().Public().Bytes(),
		version: []byte(s.version),
		agent:   []byte(s.agent),
		record:  me.record,
	}
	for _, a := range me.addrs {
		m.addrs = append(m.addrs, a.Bytes())
	}
	for _, p := range me.protocols {
		m.protocols = append(m.protocols, []byte(p))
	}
	me.first, me.rest = m.frames()
	return me
}

// tellable cuts off addresses for which there is no room in a message.
func tellable(addrs []ma.Multiaddr) []ma.Multiaddr {
	bytes := 0
	for i, a := range addrs {
		if bytes += len(a.Bytes()) + 4; bytes > sendAddrs || i == peer.MaxRecordAddrs {
			return addrs[:i]
		}
	}
	return addrs
}

// answer serves [Protocol].
//
// "The peer being identified responds by returning an Identify message and
// closes the stream."
func (s *service) answer(_ context.Context, st *plexus.Stream) error {
	me := s.current()
	c := st.Conn()
	sc := s.scratches.Get().(*scratch)
	defer s.recycle(sc)
	// "This is the connection source address of the stream-initiating peer as
	// observed by the peer being identified"
	sc.b = appendAnswer(sc.b, me.first, me.rest, c.RemoteAddr().Bytes())
	st.SetDeadline(time.Now().Add(timeout))
	if _, err := st.Write(sc.b); err != nil {
		return err
	}
	s.hasHeard(c.Peer(), me.gen)
	return nil
}

// hasHeard notes that a peer was told a generation of self.
func (s *service) hasHeard(p peer.ID, gen uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.guests[p]; g != nil {
		g.told = max(g.told, gen)
	}
}

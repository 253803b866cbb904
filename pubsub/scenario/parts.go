package scenario

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
)

// partLen is how long each of the eight parts of a partial message is.
const partLen = 1024

// parts are the partial messages of a node: the test plan's application of the
// extension. The metadata is a byte with a bit for each part that somebody has; a partial
// message is that byte, the parts in order, and the group's ID.
type parts struct {
	groups   map[string]*group // by topic and ID
	complete func(group uint64)
}

type group struct {
	topic string
	id    [8]byte
	part  [8][]byte
	peers map[peer.ID]*exchange
}

// An exchange is what is known between a peer and this node.
type exchange struct {
	heard bool // it has told what it has
	has   byte
	told  bool // it has been told what this node has
	knows byte // of that
}

var errPart = errors.New("scenario: not a partial message")

func (p *parts) group(topic string, id []byte) *group {
	key := topic + "\x00" + string(id)
	g := p.groups[key]
	if g == nil {
		g = &group{topic: topic, peers: make(map[peer.ID]*exchange)}
		copy(g.id[:], id)
		if p.groups == nil {
			p.groups = make(map[string]*group)
		}
		p.groups[key] = g
	}
	return g
}

func (g *group) mine() (b byte) {
	for i, x := range g.part {
		if x != nil {
			b |= 1 << i
		}
	}
	return b
}

func (g *group) with(id peer.ID) *exchange {
	x := g.peers[id]
	if x == nil {
		x = new(exchange)
		g.peers[id] = x
	}
	return x
}

// fill makes parts: the group's ID, counted up in 64 bits from part to part.
func (p *parts) fill(topic string, id uint64, which byte) {
	g := p.group(topic, binary.BigEndian.AppendUint64(nil, id))
	for i := range g.part {
		if which&(1<<i) == 0 {
			continue
		}
		b := make([]byte, 0, partLen)
		for j := range uint64(partLen / 8) {
			b = binary.BigEndian.AppendUint64(b, id+uint64(i)*partLen/8+j)
		}
		g.part[i] = b
	}
	if g.mine() == 0xff {
		p.complete(id)
	}
}

// incoming takes in what a peer sends. The node publishes the group thereafter.
func (p *parts) incoming(from peer.ID, m *pubsub.Partial) (*group, error) {
	if len(m.Group) != 8 {
		return nil, errPart
	}
	g := p.group(m.Topic, m.Group)
	x := g.with(from)
	if len(m.Metadata) > 0 {
		x.heard = true
		x.has |= m.Metadata[0]
	}
	if len(m.Message) == 0 {
		return g, nil
	}
	before := g.mine()
	b := m.Message
	if len(b) < 9 || !bytes.Equal(b[len(b)-8:], g.id[:]) {
		return nil, errPart
	}
	which := b[0]
	b = b[1 : len(b)-8]
	if len(b) != bits.OnesCount8(which)*partLen {
		return nil, errPart
	}
	x.has |= which
	x.knows |= which
	for i := range g.part {
		if which&(1<<i) == 0 {
			continue
		}
		if g.part[i] == nil {
			g.part[i] = bytes.Clone(b[:partLen])
		}
		b = b[partLen:]
	}
	if before != 0xff && g.mine() == 0xff {
		p.complete(binary.BigEndian.Uint64(g.id[:]))
	}
	return g, nil
}

// send is what to send a peer: what it lacks, once it has told what it has, and what
// this node has, if it does not know.
func (g *group) send(to peer.ID, wants bool) (s gossipsub.Part) {
	x, mine := g.with(to), g.mine()
	if lacks := mine &^ x.has; wants && x.heard && lacks != 0 {
		b := []byte{lacks}
		for i, part := range g.part {
			if lacks&(1<<i) != 0 {
				b = append(b, part...)
			}
		}
		s.Message = append(b, g.id[:]...)
		x.knows |= mine
		x.has |= mine
	}
	if !x.told || mine&^x.knows != 0 {
		x.told = true
		x.knows |= mine
		s.Metadata = []byte{x.knows}
	}
	return s
}

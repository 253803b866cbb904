package pubsub

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
)

// Bounds of what one RPC may hold, whatever its size in bytes: what is parsed must
// not cost much more than what was sent.
const (
	maxItems   = 1 << 16 // subscriptions, messages and control messages, and the IDs in them
	maxTopic   = 4 << 10 // bytes of a topic's name
	maxID      = 1 << 10 // bytes of a message ID; longer ones are nobody's and skipped
	maxPX      = 64      // peers of a PRUNE; further ones are skipped
	maxBackoff = 24 * time.Hour
)

// An RPC is everything that peers send each other.
//
//	message RPC {
//		repeated SubOpts subscriptions = 1;
//		repeated Message publish = 2;
//		optional ControlMessage control = 3;
//		optional PartialMessagesExtension partial = 10;
//		optional TestExtension testExtension = 6492434;
//	}
//
// https://github.com/libp2p/specs/blob/master/pubsub/README.md#the-rpc,
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/extensions/extensions.proto
type RPC struct {
	Subs     []SubOpts
	Messages [][]byte // encoded, each a part of the input; see [ParseMessage]
	Control  Control
	Partial  *Partial
	Test     bool // testExtension, which has no content
}

// SubOpts is a change of a peer's subscriptions.
//
//	message SubOpts {
//		optional bool subscribe = 1;
//		optional string topicid = 2;
//		optional bool requestsPartial = 3;
//		optional bool supportsSendingPartial = 4;
//	}
type SubOpts struct {
	Topic           string
	Subscribe       bool
	RequestsPartial bool // it wants parts rather than whole messages
	SupportsPartial bool // it can send parts
}

// Control is what gossipsub routers tell each other.
//
//	message ControlMessage {
//		repeated ControlIHave ihave = 1;
//		repeated ControlIWant iwant = 2;
//		repeated ControlGraft graft = 3;
//		repeated ControlPrune prune = 4;
//		repeated ControlIDontWant idontwant = 5;
//		optional ControlExtensions extensions = 6;
//	}
type Control struct {
	IHave      []IHave
	IWant      [][]byte // IDs; parts of the input, as all of them
	Graft      []string
	Prune      []Prune
	IDontWant  [][]byte
	Extensions *Extensions
}

// IsZero reports whether c says nothing.
func (c *Control) IsZero() bool {
	return len(c.IHave) == 0 && len(c.IWant) == 0 && len(c.Graft) == 0 && len(c.Prune) == 0 && len(c.IDontWant) == 0 && c.Extensions == nil
}

// IHave names messages that a peer has.
type IHave struct {
	Topic string
	IDs   [][]byte
}

// Prune removes a peer from a mesh.
type Prune struct {
	Topic   string
	Peers   []PX
	Backoff time.Duration // whole seconds; 0: not said
}

// PX is a peer to connect to instead.
type PX struct {
	ID     peer.ID
	Record []byte // a sealed [peer.Record], or nil
}

// Extensions is what a peer of /meshsub/1.3.0 supports.
type Extensions struct {
	Partial bool // partialMessages = 10
	Test    bool // testExtension = 6492434
}

// Partial is a message of the extension for partial messages. What its fields but
// Topic hold is the application's.
//
//	message PartialMessagesExtension {
//		optional string topicID = 1;
//		optional bytes groupID = 2;
//		optional bytes partialMessage = 3;
//		optional bytes partsMetadata = 4;
//	}
//
// https://github.com/libp2p/specs/pull/685
type Partial struct {
	Topic    string
	Group    []byte
	Message  []byte
	Metadata []byte // nil: not said
}

// Numbers of the fields that are not 1, 2, 3.
const (
	fieldPartial = 10
	fieldTest    = 6492434
)

var (
	errItems = errors.New("too many items")
	errTopic = errors.New("topic too long")
)

// Parse reads an RPC from b, of which its byte slices are parts. r must be zero.
// Message IDs, keys and records are bytes to it, whatever deployed definitions call
// them, and are never checked for UTF-8. The error wraps pb.ErrMalformed.
func (r *RPC) Parse(b []byte) error {
	items := 0
	take := func() bool { items++; return items <= maxItems }
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1, 2, 3:
			if !take() {
				return malformed(errItems)
			}
		}
		var err error
		switch d.Field() {
		case 1:
			var s SubOpts
			if err = s.parse(d.Bytes()); err == nil {
				r.Subs = append(r.Subs, s)
			}
		case 2:
			if m := d.Bytes(); d.Err() == nil {
				r.Messages = append(r.Messages, m)
			}
		case 3:
			err = r.Control.parse(d.Bytes(), take)
		case fieldPartial:
			r.Partial = new(Partial)
			err = r.Partial.parse(d.Bytes())
		case fieldTest:
			d.Bytes()
			r.Test = true
		}
		if err != nil {
			return err
		}
	}
	return d.Err()
}

func malformed(err error) error { return fmt.Errorf("pubsub: %w: %w", pb.ErrMalformed, err) }

// topicOf reads a topic's name.
func topicOf(d *pb.Decoder) (string, error) {
	b := d.Bytes()
	if len(b) > maxTopic {
		return "", malformed(errTopic)
	}
	return string(b), nil
}

func (s *SubOpts) parse(b []byte) (err error) {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			s.Subscribe = d.Bool()
		case 2:
			if s.Topic, err = topicOf(&d); err != nil {
				return err
			}
		case 3:
			s.RequestsPartial = d.Bool()
		case 4:
			s.SupportsPartial = d.Bool()
		}
	}
	// "If a node requests partial messages, it MUST support sending partial
	// messages."; "fields value MUST be ignored when a peer sends an unsubscribe"
	s.RequestsPartial = s.RequestsPartial && s.Subscribe
	s.SupportsPartial = (s.SupportsPartial || s.RequestsPartial) && s.Subscribe
	return d.Err()
}

// parse adds the control messages in b, as a second occurrence of an embedded
// message adds to the first.
func (c *Control) parse(b []byte, take func() bool) error {
	d := pb.Decode(b)
	for d.Next() {
		if !take() {
			return malformed(errItems)
		}
		var err error
		switch d.Field() {
		case 1:
			var h IHave
			if err = h.parse(d.Bytes(), take); err == nil {
				c.IHave = append(c.IHave, h)
			}
		case 2:
			c.IWant, err = parseIDs(c.IWant, 1, d.Bytes(), take)
		case 3:
			var t string
			if t, err = parseGraft(d.Bytes()); err == nil {
				c.Graft = append(c.Graft, t)
			}
		case 4:
			var p Prune
			if err = p.parse(d.Bytes()); err == nil {
				c.Prune = append(c.Prune, p)
			}
		case 5:
			c.IDontWant, err = parseIDs(c.IDontWant, 1, d.Bytes(), take)
		case 6:
			if c.Extensions == nil {
				c.Extensions = new(Extensions)
			}
			err = c.Extensions.parse(d.Bytes())
		}
		if err != nil {
			return err
		}
	}
	return d.Err()
}

func (h *IHave) parse(b []byte, take func() bool) (err error) {
	d := pb.Decode(b)
	for d.Next() {
		if d.Field() == 1 {
			if h.Topic, err = topicOf(&d); err != nil {
				return err
			}
		}
	}
	if d.Err() != nil {
		return d.Err()
	}
	h.IDs, err = parseIDs(nil, 2, b, take)
	return err
}

// parseIDs adds the message IDs in the field num of b to ids.
func parseIDs(ids [][]byte, num int, b []byte, take func() bool) ([][]byte, error) {
	d := pb.Decode(b)
	for d.Next() {
		if d.Field() != num {
			continue
		}
		id := d.Bytes()
		if !take() {
			return nil, malformed(errItems)
		}
		if len(id) <= maxID && d.Err() == nil {
			ids = append(ids, id)
		}
	}
	return ids, d.Err()
}

func parseGraft(b []byte) (topic string, err error) {
	d := pb.Decode(b)
	for d.Next() {
		if d.Field() == 1 {
			if topic, err = topicOf(&d); err != nil {
				return "", err
			}
		}
	}
	return topic, d.Err()
}

func (p *Prune) parse(b []byte) (err error) {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			if p.Topic, err = topicOf(&d); err != nil {
				return err
			}
		case 2:
			v := d.Bytes()
			if len(p.Peers) == maxPX {
				continue
			}
			var x PX
			if err := x.parse(v); err != nil {
				return err
			}
			p.Peers = append(p.Peers, x)
		case 3:
			s := min(d.Uvarint(), uint64(maxBackoff/time.Second))
			p.Backoff = time.Duration(s) * time.Second
		}
	}
	return d.Err()
}

// parse reads a PeerInfo{bytes peerID = 1; bytes signedPeerRecord = 2}.
func (x *PX) parse(b []byte) error {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			x.ID = peer.ID(d.Text())
		case 2:
			x.Record = d.Bytes()
		}
	}
	return d.Err()
}

func (e *Extensions) parse(b []byte) error {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case fieldPartial:
			e.Partial = d.Bool()
		case fieldTest:
			e.Test = d.Bool()
		}
	}
	return d.Err() // "Peers MUST ignore unknown extensions."
}

func (p *Partial) parse(b []byte) (err error) {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			if p.Topic, err = topicOf(&d); err != nil {
				return err
			}
		case 2:
			p.Group = d.Bytes()
		case 3:
			p.Message = d.Bytes()
		case 4:
			p.Metadata = d.Bytes()
		}
	}
	return d.Err()
}

// Append appends r, without a length before it, to b.
func (r *RPC) Append(b []byte) []byte {
	for _, s := range r.Subs {
		b = s.append(b)
	}
	for _, m := range r.Messages {
		b = pb.AppendBytes(b, 2, m)
	}
	if !r.Control.IsZero() {
		var at int
		b, at = pb.Begin(b, 3)
		b = pb.End(r.Control.append(b), at)
	}
	if r.Partial != nil {
		b = r.Partial.append(b)
	}
	if r.Test {
		b = pb.AppendBytes(b, fieldTest, "")
	}
	return b
}

func (s SubOpts) append(b []byte) []byte {
	b, at := pb.Begin(b, 1)
	b = pb.AppendBool(b, 1, s.Subscribe)
	b = pb.AppendBytes(b, 2, s.Topic)
	if s.RequestsPartial {
		b = pb.AppendBool(b, 3, true)
	}
	if s.SupportsPartial {
		b = pb.AppendBool(b, 4, true)
	}
	return pb.End(b, at)
}

func (c *Control) append(b []byte) []byte {
	for _, h := range c.IHave {
		b = appendIHave(b, h.Topic, h.IDs)
	}
	if len(c.IWant) > 0 {
		b = appendIDs(b, 2, c.IWant)
	}
	for _, t := range c.Graft {
		b = appendGraft(b, t)
	}
	for _, p := range c.Prune {
		b = p.append(b)
	}
	if len(c.IDontWant) > 0 {
		b = appendIDs(b, 5, c.IDontWant)
	}
	if c.Extensions != nil {
		b = c.Extensions.append(b)
	}
	return b
}

func appendIHave[ID ~[]byte | ~string](b []byte, topic string, ids []ID) []byte {
	b, at := pb.Begin(b, 1)
	b = pb.AppendBytes(b, 1, topic)
	for _, id := range ids {
		b = pb.AppendBytes(b, 2, id)
	}
	return pb.End(b, at)
}

// appendIDs appends an IWANT (2) or IDONTWANT (5).
func appendIDs[ID ~[]byte | ~string](b []byte, num int, ids []ID) []byte {
	b, at := pb.Begin(b, num)
	for _, id := range ids {
		b = pb.AppendBytes(b, 1, id)
	}
	return pb.End(b, at)
}

func appendGraft(b []byte, topic string) []byte {
	b, at := pb.Begin(b, 3)
	return pb.End(pb.AppendBytes(b, 1, topic), at)
}

func (p *Prune) append(b []byte) []byte {
	b, at := pb.Begin(b, 4)
	b = pb.AppendBytes(b, 1, p.Topic)
	for _, x := range p.Peers {
		var in int
		b, in = pb.Begin(b, 2)
		b = pb.AppendBytes(b, 1, x.ID)
		if x.Record != nil {
			b = pb.AppendBytes(b, 2, x.Record)
		}
		b = pb.End(b, in)
	}
	if s := math.Ceil(p.Backoff.Seconds()); s > 0 {
		b = pb.AppendUvarint(b, 3, uint64(s))
	}
	return pb.End(b, at)
}

func (e *Extensions) append(b []byte) []byte {
	b, at := pb.Begin(b, 6)
	if e.Partial {
		b = pb.AppendBool(b, fieldPartial, true)
	}
	if e.Test {
		b = pb.AppendBool(b, fieldTest, true)
	}
	return pb.End(b, at)
}

func (p *Partial) append(b []byte) []byte {
	b, at := pb.Begin(b, fieldPartial)
	b = pb.AppendBytes(b, 1, p.Topic)
	b = pb.AppendBytes(b, 2, p.Group)
	if p.Message != nil {
		b = pb.AppendBytes(b, 3, p.Message)
	}
	if p.Metadata != nil {
		b = pb.AppendBytes(b, 4, p.Metadata)
	}
	return pb.End(b, at)
}

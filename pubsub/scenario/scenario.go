// Package scenario reads the scripts of the gossipsub-interop test plan, and runs them on
// one host, in real or virtual time, or on a whole network of package pubsubsim.
//
// A script is the same for all nodes: connect, subscribe, wait, publish. Its nodes have
// numbers, from which their keys follow. A node's output is a line of JSON for its ID,
// for every copy of a message, and for every group of which it has all parts.
//
// Spec: https://github.com/libp2p/test-plans/blob/master/gossipsub-interop/test-specs/implementation.md,
// https://github.com/libp2p/test-plans/blob/master/gossipsub-interop/script_instruction.py
//
// # Limits
//
// Of GossipSubParams, those that are about go-libp2p-pubsub's inside are read and have no
// effect: Connectors, MaxPendingConnections, ConnectionTimeout, SlowHeartbeatWarning and
// DirectConnectInitialDelay.
package scenario

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
)

// A Script is what the nodes of an experiment do, in order.
type Script struct {
	Instructions []Instruction `json:"script"`
}

// An Instruction is one step. Which fields count depends on its Type.
type Instruction struct {
	Type string `json:"type"`

	// ifNodeIDEquals: the step is that node's alone.
	NodeID      int          `json:"nodeID,omitempty"`
	Instruction *Instruction `json:"instruction,omitempty"`

	ConnectTo      []int   `json:"connectTo,omitempty"`       // connect
	Params         *Params `json:"gossipSubParams,omitempty"` // initGossipSub
	ElapsedSeconds int     `json:"elapsedSeconds,omitempty"`  // waitUntil: since the node started

	TopicID          string  `json:"topicID,omitempty"`          // all below
	Partial          bool    `json:"partial,omitempty"`          // subscribeToTopic
	DelaySeconds     float64 `json:"delaySeconds,omitempty"`     // setTopicValidationDelay
	MessageID        uint64  `json:"messageID,omitempty"`        // publish
	MessageSizeBytes int     `json:"messageSizeBytes,omitempty"` // publish
	GroupID          uint64  `json:"groupID,omitempty"`          // addPartialMessage, publishPartial
	Parts            uint8   `json:"parts,omitempty"`            // addPartialMessage
	PublishToNodeIDs []int   `json:"publishToNodeIDs,omitempty"` // publishPartial
}

// Params are parameters under their names in go-libp2p-pubsub, times in nanoseconds. What
// is null or missing has its default.
type Params struct {
	D, Dlo, Dhi, Dscore, Dout, Dlazy            *int
	HistoryLength, HistoryGossip                *int
	GossipFactor                                *float64
	GossipRetransmission                        *int
	HeartbeatInitialDelay, HeartbeatInterval    *float64
	FanoutTTL, PruneBackoff, UnsubscribeBackoff *float64
	PrunePeers                                  *int
	DirectConnectTicks                          *int
	OpportunisticGraftTicks                     *int
	OpportunisticGraftPeers                     *int
	GraftFloodThreshold, IWantFollowupTime      *float64
	MaxIHaveLength, MaxIHaveMessages            *int
	MaxIDontWantLength, MaxIDontWantMessages    *int
	IDontWantMessageThreshold                   *int
	IDontWantMessageTTL                         *int
}

// maxNodes bounds the numbers of nodes, maxSize a message.
const (
	maxNodes = 1 << 20
	maxSize  = 10 << 20
)

// Read reads a script. The error says what is wrong with which instruction.
func Read(r io.Reader) (*Script, error) {
	var s Script
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	for i := range s.Instructions {
		if err := s.Instructions[i].check(); err != nil {
			return nil, fmt.Errorf("scenario: instruction %d: %w", i, err)
		}
	}
	return &s, nil
}

func (i *Instruction) check() error {
	number := func(ids ...int) error {
		for _, id := range ids {
			if id < 0 || id >= maxNodes {
				return fmt.Errorf("%s: node %d", i.Type, id)
			}
		}
		return nil
	}
	switch i.Type {
	case "ifNodeIDEquals":
		if i.Instruction == nil || i.Instruction.Type == i.Type {
			return errors.New("ifNodeIDEquals: no instruction, or another ifNodeIDEquals")
		}
		if err := number(i.NodeID); err != nil {
			return err
		}
		return i.Instruction.check()
	case "connect":
		return number(i.ConnectTo...)
	case "initGossipSub":
		if i.Params == nil {
			return errors.New("initGossipSub: no gossipSubParams")
		}
		_, err := gossipsub.New(i.Params.config())
		return err
	case "publish":
		// "Message ID is calculated by reading the first 8 bytes of the message"
		if i.MessageSizeBytes < 8 || i.MessageSizeBytes > maxSize {
			return fmt.Errorf("publish: %d bytes", i.MessageSizeBytes)
		}
	case "publishPartial":
		return number(i.PublishToNodeIDs...)
	case "waitUntil", "subscribeToTopic", "addPartialMessage":
	case "setTopicValidationDelay":
		if !(i.DelaySeconds >= 0 && i.DelaySeconds < 3600) {
			return fmt.Errorf("setTopicValidationDelay: %v s", i.DelaySeconds)
		}
	default:
		return fmt.Errorf("no instruction %q", i.Type)
	}
	return nil
}

// For lists what one node does.
func (s *Script) For(node int) []Instruction {
	var l []Instruction
	for _, i := range s.Instructions {
		if i.Type != "ifNodeIDEquals" {
			l = append(l, i)
		} else if i.NodeID == node {
			l = append(l, *i.Instruction)
		}
	}
	return l
}

// config returns the default Config with what p says.
func (p *Params) config() gossipsub.Config {
	c := gossipsub.DefaultParams()
	for _, x := range []struct {
		from *int
		to   *int
	}{
		{p.D, &c.D}, {p.Dlo, &c.Dlo}, {p.Dhi, &c.Dhi}, {p.Dscore, &c.Dscore}, {p.Dout, &c.Dout}, {p.Dlazy, &c.Dlazy},
		{p.HistoryLength, &c.HistoryLength}, {p.HistoryGossip, &c.HistoryGossip},
		{p.GossipRetransmission, &c.GossipRetransmission}, {p.PrunePeers, &c.PrunePeers},
		{p.DirectConnectTicks, &c.DirectConnectTicks},
		{p.OpportunisticGraftTicks, &c.OpportunisticGraftTicks}, {p.OpportunisticGraftPeers, &c.OpportunisticGraftPeers},
		{p.MaxIHaveLength, &c.MaxIHaveLength}, {p.MaxIHaveMessages, &c.MaxIHaveMessages},
		{p.MaxIDontWantLength, &c.MaxIDontWantLength}, {p.MaxIDontWantMessages, &c.MaxIDontWantMessages},
		{p.IDontWantMessageThreshold, &c.IDontWantThreshold}, {p.IDontWantMessageTTL, &c.IDontWantTTL},
	} {
		if x.from != nil {
			*x.to = *x.from
		}
	}
	for _, x := range []struct {
		from *float64
		to   *time.Duration
	}{
		{p.HeartbeatInitialDelay, &c.HeartbeatDelay}, {p.HeartbeatInterval, &c.Heartbeat},
		{p.FanoutTTL, &c.FanoutTTL}, {p.PruneBackoff, &c.PruneBackoff}, {p.UnsubscribeBackoff, &c.UnsubscribeBackoff},
		{p.GraftFloodThreshold, &c.GraftFlood}, {p.IWantFollowupTime, &c.IWantFollowup},
	} {
		if x.from != nil {
			*x.to = time.Duration(*x.from)
		}
	}
	if p.GossipFactor != nil {
		c.GossipFactor = *p.GossipFactor
	}
	return gossipsub.Config{Params: c}
}

// Key is a node's key.
//
// "Implementations MUST deterministically generate their ED25519 peer ID from their node
// ID by using their little-endian encoded node ID as their ED25519 key."
func Key(node int) peer.PrivKey {
	seed := make([]byte, ed25519.SeedSize)
	binary.LittleEndian.PutUint64(seed, uint64(node))
	k, err := peer.NewPrivKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		panic(err) // it is a key
	}
	return k
}

// messageID is the ID of a message.
//
// "Message ID is calculated by reading the first 8 bytes of the message and interpreting
// them as a big endian encoded 64 bit unsigned integer."
func messageID(m *pubsub.Message) pubsub.MessageID {
	return pubsub.MessageID(m.Data[:min(8, len(m.Data))])
}

// number is the ID as it is logged, "as a base 10 integer".
func number(id pubsub.MessageID) string {
	b := make([]byte, 8)
	copy(b, id)
	return fmt.Sprint(binary.BigEndian.Uint64(b))
}

// data makes a message.
func (i *Instruction) data() []byte {
	b := make([]byte, i.MessageSizeBytes)
	binary.BigEndian.PutUint64(b, i.MessageID)
	return b
}

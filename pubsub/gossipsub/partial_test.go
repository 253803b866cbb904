package gossipsub

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
)

// doer is what PubSub is, for a lab.
type doer struct{ l *lab }

func (d doer) Do(f func(time.Time, *pubsub.Actions)) { f(d.l.now, &d.l.a) }

// sent lists the partial messages that are to be sent, and empties the Actions.
func (l *lab) sent() (s []string) {
	for _, c := range l.a.Controls {
		if p := c.Partial; p != nil {
			s = append(s, fmt.Sprintf("%s %s %s %s", string(c.To.ID), p.Group, p.Message, p.Metadata))
		}
	}
	slices.Sort(s)
	l.a.Reset()
	return s
}

// https://github.com/libp2p/specs/pull/685
func TestPartial(t *testing.T) {
	newPartial := func(joined bool) *lab {
		cfg := Default()
		cfg.Partial = &Partial{Incoming: func(peer.ID, *pubsub.Partial) {}}
		l := newLab(t, cfg)
		if !joined {
			l.c.Leave(l.now, "t", &l.a)
		}
		for _, p := range []struct {
			id   peer.ID
			opts pubsub.SubOpts
			ext  *pubsub.Extensions
		}{
			{"requests", pubsub.SubOpts{RequestsPartial: true, SupportsPartial: true}, &pubsub.Extensions{Partial: true}},
			{"supports", pubsub.SubOpts{SupportsPartial: true}, &pubsub.Extensions{Partial: true}},
			{"neither", pubsub.SubOpts{}, &pubsub.Extensions{Partial: true}},
			{"untold", pubsub.SubOpts{RequestsPartial: true}, nil},
		} {
			p.opts.Topic, p.opts.Subscribe = "t", true
			rpc := &pubsub.RPC{Subs: []pubsub.SubOpts{p.opts}, Control: pubsub.Control{Extensions: p.ext}}
			if joined {
				rpc.Control.Graft = []string{"t"}
			}
			l.say(l.add(p.id, "/meshsub/1.3.0"), rpc)
		}
		l.a.Reset()
		return l
	}
	part := func(peer.ID, bool) Part { return Part{Message: []byte("part"), Metadata: []byte("meta")} }

	// "If a peer supports partial messages on a topic but did not request them, a node MUST
	// omit the partialMessage field of the PartialMessagesExtension message."
	l := newPartial(true)
	if err := l.r.PublishPartial(doer{l}, "t", []byte("g"), nil, part); err != nil {
		t.Fatal(err)
	}
	if got, want := l.sent(), []string{"requests g part meta", "supports g  meta"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}

	// Who does not receive the topic sends parts to the peers that it names.
	l = newPartial(false)
	if err := l.r.PublishPartial(doer{l}, "t", []byte("g"), []peer.ID{"requests", "supports", "gone"}, part); err != nil {
		t.Fatal(err)
	}
	if got, want := l.sent(), []string{"requests g part meta"}; !slices.Equal(got, want) {
		t.Errorf("without a subscription: got %q, want %q", got, want)
	}
	// Who gets parts from one that is not subscribed tells it what else it lacks.
	l = newPartial(true)
	x := l.add("publisher", "/meshsub/1.3.0")
	l.say(x, &pubsub.RPC{Control: pubsub.Control{Extensions: &pubsub.Extensions{Partial: true}}, Partial: &pubsub.Partial{Topic: "t", Group: []byte("h")}})
	if err := l.r.PublishPartial(doer{l}, "t", []byte("h"), nil, part); err != nil {
		t.Fatal(err)
	}
	if got := l.sent(); !slices.Contains(got, "publisher h  meta") {
		t.Errorf("the publisher is not answered: %q", got)
	}

	l = newLab(t, Default())
	if err := l.r.PublishPartial(doer{l}, "t", []byte("g"), nil, part); !errors.Is(err, ErrPartial) {
		t.Errorf("with the extension off: %v", err)
	}
}

// "If a topic is not configured, then its delivery weight is 1."
// https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/red.md
func TestDeliveryWeight(t *testing.T) {
	cfg := Default()
	cfg.Gater = &GaterParams{DeliveryWeight: map[string]float64{"t": 5}}
	l := newLab(t, cfg)
	l.c.Join(l.now, pubsub.SubOpts{Topic: "u"}, &l.a)
	p := l.peers[0]
	for i, topic := range []string{"t", "u", "u"} {
		m := pubsub.NewMessage(topic, id(i))
		m.ID = pubsub.MessageID(id(i))
		l.c.Receive(l.now, p, m, &l.a)
		l.c.Verified(l.now, m, &l.a)
		l.c.Decide(l.now, m, pubsub.Accepted, &l.a)
	}
	if got := l.r.gater.by[p.IP].accept; got != 7 {
		t.Errorf("accepted deliveries weigh %v, want 7", got)
	}
}

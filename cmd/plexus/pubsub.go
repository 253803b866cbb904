package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
)

// pubsubFlags are those of pub, sub, chat and topic.
type pubsubFlags struct {
	Peer     []string `placeholder:"ADDR" sep:"none" help:"Connect to this node, and again when it is lost; may be repeated."`
	Listen   []string `short:"l" placeholder:"ADDR" sep:"none" help:"Listen there; may be repeated. Default: as plexus up does."`
	Port     uint16   `short:"p" placeholder:"PORT" help:"The port of the default addresses. Default: a free one."`
	Router   string   `enum:"gossipsub,floodsub" default:"gossipsub" placeholder:"NAME" help:"How messages travel: gossipsub, which speaks floodsub too, or floodsub."`
	Unsigned bool     `help:"Messages have neither author nor signature. All in the topic must do so."`
}

// member is a node with pubsub that has joined a topic.
type member struct {
	*plexus.Host
	pubsub *pubsub.PubSub
	topic  *pubsub.Topic
	peers  []peer.AddrInfo // those of --peer
	e      *env
	keep   context.CancelFunc
	wg     sync.WaitGroup
}

// join makes a node that has joined a topic, and is connected to nobody yet. Close it.
func (f *pubsubFlags) join(e *env, topic string, g gossipsub.Config, cfg pubsub.Config) (*member, error) {
	if topic == "" {
		return nil, &failure{Kind: kindUsage, Text: "TOPIC is empty"}
	}
	m := &member{e: e, keep: func() {}}
	for _, a := range f.Peer {
		to, err := parseAddr(a)
		if err != nil {
			return nil, err
		}
		m.peers = append(m.peers, to)
	}
	for _, a := range f.Listen {
		if _, err := ma.NewMultiaddr(a); err != nil {
			return nil, badAddr(a, err)
		}
	}
	var err error
	m.Host, err = e.node(node.Config{KeyFile: e.Key, Listen: f.Listen, Port: f.Port})
	if op, ok := errors.AsType[*plexus.OpError](err); ok {
		return nil, tried("listen on "+op.Addr.String(), op.Err)
	}
	if err != nil {
		return nil, err
	}
	var r pubsub.Router = floodsub.New()
	if f.Router == "gossipsub" {
		r = gossipsub.Must(g)
	}
	if f.Unsigned {
		cfg.Policy = pubsub.StrictNoSign
	}
	cfg.Logger = e.logger(slog.LevelError + 1)
	if m.pubsub, err = pubsub.New(m.Host, r, cfg); err == nil {
		m.topic, err = m.pubsub.Join(topic, pubsub.TopicConfig{})
	}
	if err != nil {
		m.Host.Close()
		return nil, err
	}
	return m, nil
}

// connect connects to the nodes of --peer, and keeps connected to them. The error is
// that of all, if none could be reached; one that is missing among others is told.
func (m *member) connect() error {
	ctx, cancel := m.e.within()
	defer cancel()
	errs := make([]error, len(m.peers))
	var wg sync.WaitGroup
	for i := range m.peers {
		wg.Go(func() {
			var c *plexus.Conn
			if c, errs[i] = m.Dial(ctx, m.peers[i]); errs[i] == nil {
				m.peers[i].ID = c.Peer()
			}
		})
	}
	wg.Wait()
	failed := 0
	for i, err := range errs {
		if err == nil {
			continue
		}
		failed++
		errs[i] = tried("connect to "+addrOf(m.peers[i]), err)
		if len(m.peers) > 1 {
			m.e.notes.print(describe(errs[i]))
		}
	}
	switch {
	case failed == 0 || failed < len(m.peers):
	case failed == 1:
		return errs[0]
	default:
		return &failure{Kind: describe(errs[0]).Kind, Text: fmt.Sprintf("none of %d peers could be reached", failed)}
	}
	ctx, m.keep = context.WithCancel(m.e.ctx)
	for _, p := range m.peers {
		m.wg.Go(func() { m.keepConnected(ctx, p) }) // ends with Close
	}
	return nil
}

// addrOf is an address of a node, as people write it.
func addrOf(i peer.AddrInfo) string {
	if i.ID == "" {
		return i.Addrs[0].String()
	}
	return i.Full()[0].String()
}

// keepConnected dials a node whenever there is no connection to it.
func (m *member) keepConnected(ctx context.Context, to peer.AddrInfo) {
	const first, most = time.Second, time.Minute
	pause := first
	for {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		if to.ID != "" && len(m.ConnsTo(to.ID)) > 0 {
			pause = first
			continue
		}
		if c, err := m.Dial(ctx, to); err == nil {
			to.ID = c.Peer()
		}
		pause = min(2*pause, most)
	}
}

// announce says how others get to this node. For people that goes without saying where
// there is a --peer by which they meet.
func (m *member) announce() {
	if len(m.peers) == 0 || m.e.JSON {
		whereabouts(m.e.news(), m.Info())
	}
}

// Close lets what was published leave, and ends the node.
func (m *member) Close() error {
	m.keep()
	m.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	err := m.pubsub.Flush(ctx)
	m.Host.Close()
	return err
}

// flushTimeout is how long peers have, at the end, to take what was published.
const flushTimeout = 5 * time.Second

// pubsubReason says why pubsub did not do something; "" where it is not for pubsub to say.
func pubsubReason(err error) (kind, string) {
	for _, r := range []struct {
		err error
		k   kind
	}{
		{pubsub.ErrNoPeers, kindNoPeers}, {pubsub.ErrFull, kindTimeout}, {pubsub.ErrTooLarge, kindFailed},
		{pubsub.ErrDuplicate, kindFailed}, {pubsub.ErrRejected, kindFailed},
	} {
		if !errors.Is(err, r.err) {
			continue
		}
		// What is before it says what was tried, which verbs say themselves.
		text := err.Error()
		return r.k, text[strings.Index(text, r.err.Error()):]
	}
	return "", ""
}

// visible makes any bytes fit for a line of a terminal: what is no printable text is
// written as Go writes it in strings. It can be read back but for the quotes.
func visible(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&s, `\x%02x`, b[0])
		case r == '\\':
			s.WriteString(`\\`)
		case r != utf8.RuneError && !strconv.IsPrint(r):
			q := strconv.QuoteRune(r)
			s.WriteString(q[1 : len(q)-1])
		default:
			s.WriteRune(r)
		}
		b = b[n:]
	}
	return s.String()
}

// colourOf is a colour that a peer keeps.
func colourOf(s style, id peer.ID, text string) string {
	h := fnv.New32a()
	io.WriteString(h, string(id))
	return s.sgr([...]string{"36", "32", "33", "35", "34", "96", "92", "93", "95", "94"}[h.Sum32()%10], text)
}

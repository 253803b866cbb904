package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
)

type subCmd struct {
	Topic string `arg:"" name:"TOPIC" help:"What to receive."`
	Count int    `short:"n" placeholder:"N" help:"Stop after so many messages. Default: at ^C."`
	Raw   bool   `help:"Print the messages' bytes as they are, and nothing else."`
	pubsubFlags
}

func (subCmd) Help() string {
	return `Prints when each message came, who published it, and what it says: bytes that are no text as
Go writes them, such as \n or \xff. With --json, "data" has the bytes in base64, and "text" is there
if they are text. Without --peer it says, to standard error, how others get to it.

Examples:

  plexus sub news --peer ADDR
  plexus sub images --raw -n 1 --peer ADDR > photo.jpg
  plexus sub logs --json --peer ADDR | jq -r .text`
}

// received is a message that came.
type received struct {
	Time  string  `json:"time"`
	Topic string  `json:"topic"`
	From  peer.ID `json:"from,omitempty"`
	Via   peer.ID `json:"via"`
	ID    string  `json:"id"` // hexadecimal
	Text  *string `json:"text,omitempty"`
	Data  []byte  `json:"data"`
	at    time.Time
}

func receivedNow(m *pubsub.Message) received {
	now := time.Now()
	r := received{
		Time: now.UTC().Format(time.RFC3339Nano), Topic: m.Topic, From: m.From, Via: m.ReceivedFrom,
		ID: hex.EncodeToString([]byte(m.ID)), Data: m.Data, at: now,
	}
	if utf8.Valid(m.Data) {
		s := string(m.Data)
		r.Text = &s
	}
	return r
}

func (received) event() string { return "message" }

func (r received) text(s style) string {
	who := s.dim(fmt.Sprintf("%8s", "-"))
	if r.From != "" {
		who = colourOf(s, r.From, r.From.Short())
	}
	return s.dim(r.at.Format("15:04:05.000")) + "  " + who + "  " + visible(r.Data)
}

// missed is what was lost, for want of a fast reader.
type missed struct {
	Messages int `json:"messages"`
}

func (missed) event() string { return "lost" }

func (r missed) text(s style) string {
	return s.red(count(r.Messages, "message") + " lost: they came faster than they were printed")
}

func (c *subCmd) Run(e *env) error {
	if c.Count < 0 {
		return &failure{Kind: kindUsage, Text: "-n must not be negative"}
	}
	if c.Raw && e.JSON {
		return &failure{Kind: kindUsage, Text: "--raw and --json exclude each other"}
	}
	m, err := c.join(e, c.Topic, gossipsub.Default(), pubsub.Config{})
	if err != nil {
		return err
	}
	defer m.Close()
	sub := m.topic.Subscribe()
	if err := m.connect(); err != nil {
		return err
	}
	m.announce()
	if e.Verbose {
		go func() { // ends with e.ctx or m
			for ch := range m.topic.Watch(e.ctx) {
				e.news().print(arrival{ch.Here, ch.Peer})
			}
		}()
	}
	return c.print(e, sub)
}

// arrival is a neighbour that came to the topic, or left it.
type arrival struct {
	here bool
	Peer peer.ID `json:"peer"`
}

func (r arrival) event() string {
	if r.here {
		return "joined"
	}
	return "left"
}

func (r arrival) text(s style) string {
	if r.here {
		return s.green("+ ") + r.Peer.String()
	}
	return s.red("- ") + r.Peer.String()
}

// print prints messages until there are enough.
func (c *subCmd) print(e *env, sub *pubsub.Subscription) error {
	n, lost := 0, 0
	for m, err := range sub.All(e.ctx) {
		gone, _ := errors.AsType[*pubsub.LostError](err)
		switch {
		case gone != nil:
			lost += gone.Messages
			e.notes.print(missed{gone.Messages})
			continue
		case errors.Is(err, context.Canceled):
		case err != nil:
			return err
		case c.Raw:
			if _, err := e.stdout.Write(m.Data); err != nil {
				return fmt.Errorf("standard output: %w", err)
			}
		default:
			e.out.print(receivedNow(m))
			if err := e.out.failed(); err != nil {
				return err
			}
		}
		if n++; err != nil || n == c.Count {
			break
		}
	}
	if lost > 0 {
		return &failure{Kind: kindFailed, Text: missed{lost}.text(style{})}
	}
	return nil
}

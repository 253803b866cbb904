package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
)

type pubCmd struct {
	Topic    string   `arg:"" name:"TOPIC" help:"Where to publish."`
	Messages []string `arg:"" optional:"" name:"MESSAGE" help:"What to publish. Default: the lines of standard input, a message each."`
	Whole    bool     `help:"All of standard input is one message."`
	pubsubFlags
}

func (pubCmd) Help() string {
	return `Waits for a first peer in the topic, publishes, and says how many neighbours took each message.
It ends when they have it.

Examples:

  plexus pub news "it rains" --peer ADDR
  tail -f log | plexus pub logs --peer ADDR --peer OTHER
  plexus pub images --whole --peer ADDR < photo.jpg`
}

// published is a message that went out.
type published struct {
	Topic string `json:"topic"`
	ID    string `json:"id"` // hexadecimal
	Bytes int    `json:"bytes"`
	Peers int    `json:"peers"`
	Left  int    `json:"left"` // neighbours that had no room for it
}

func (published) event() string { return "published" }

func (r published) text(s style) string {
	line := fmt.Sprintf("%s %9s  to %s", s.green("published"), size(r.Bytes), count(r.Peers, "peer"))
	if r.Left > 0 {
		line += s.yellow(fmt.Sprintf(", %d had no room for it", r.Left))
	}
	return line
}

// count is "1 peer", "2 peers".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (c *pubCmd) Run(e *env) (err error) {
	m, err := c.join(e, c.Topic, gossipsub.Default(), pubsub.Config{})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := m.Close(); err == nil && cerr != nil {
			err = tried("send everything", cerr)
		}
	}()
	if err := m.connect(); err != nil {
		return err
	}
	if len(m.peers) == 0 {
		whereabouts(e.notes, m.Info())
	}
	if err := c.wait(e, m); err != nil {
		return err
	}
	for msg, err := range c.messages(e) {
		if err != nil {
			return err
		}
		ctx, cancel := e.within()
		r, err := m.topic.Publish(ctx, msg)
		cancel()
		if err == nil || errors.Is(err, pubsub.ErrFull) || errors.Is(err, pubsub.ErrNoPeers) {
			e.out.print(published{c.Topic, hex.EncodeToString([]byte(r.ID)), len(msg), r.Peers, r.Left})
		}
		if err != nil {
			return tried("publish to "+clean(c.Topic), err)
		}
	}
	return nil
}

// wait waits for a peer in the topic.
func (c *pubCmd) wait(e *env, m *member) error {
	ctx, cancel := e.within()
	defer cancel()
	err := m.topic.Wait(ctx, 1)
	if isTimeout(err) {
		why := "connect to somebody who is in it with --peer"
		if len(m.peers) > 0 {
			why = "none of those connected to is in it"
		}
		return &failure{Kind: kindNoPeers, Text: fmt.Sprintf("nobody to publish to in %s within %s: %s", clean(c.Topic), e.Timeout, why)}
	}
	return err
}

// messages yields what is to be published.
func (c *pubCmd) messages(e *env) func(yield func([]byte, error) bool) {
	return func(yield func([]byte, error) bool) {
		switch {
		case len(c.Messages) > 0:
			for _, m := range c.Messages {
				if !yield([]byte(m), nil) {
					return
				}
			}
		case c.Whole:
			b, err := io.ReadAll(io.LimitReader(e.stdin, pubsub.DefaultMaxMessage+1))
			yield(b, err)
		default:
			e.hint("Each line is a message; ^D ends.")
			for line, err := range lines(e.ctx, e.stdin) {
				if !yield(line, err) {
					return
				}
			}
		}
	}
}

// lines yields the lines of r, without their ends, until ctx ends.
func lines(ctx context.Context, r io.Reader) func(yield func([]byte, error) bool) {
	type line struct {
		text []byte
		err  error
	}
	return func(yield func([]byte, error) bool) {
		all := make(chan line)
		done := make(chan struct{})
		defer close(done)
		go func() { // ends with the input or the loop; with the process, where that is a terminal
			defer close(all)
			in := bufio.NewScanner(r)
			in.Buffer(nil, pubsub.DefaultMaxMessage)
			for in.Scan() {
				select {
				case all <- line{text: bytes.Clone(in.Bytes())}:
				case <-done:
					return
				}
			}
			err := in.Err()
			if errors.Is(err, bufio.ErrTooLong) {
				err = &failure{Kind: kindUsage, Text: "a line of standard input is longer than a message may be; --whole sends all of it as one, up to " + size(pubsub.DefaultMaxMessage).String()}
			}
			if err != nil {
				select {
				case all <- line{err: err}:
				case <-done:
				}
			}
		}()
		for {
			select {
			case l, ok := <-all:
				if !ok || !yield(l.text, l.err) || l.err != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

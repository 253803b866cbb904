// Command request asks a peer and gets an answer, each a JSON value on a stream
// of its own: how to write a protocol.
//
//	go run ./examples/request
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
)

// A protocol is a name, which both ends agree on when the stream opens. A version
// in it lets the next one be served beside it.
const protocol = "/examples/divide/1.0.0"

type question struct{ A, B int }

type answer struct {
	Quotient, Remainder int
	Error               string `json:",omitempty"`
}

// serve answers one question. An error of the peer's is part of the answer. One
// that serve returns resets the stream: the peer's Read fails.
func serve(_ context.Context, s *plexus.Stream) error {
	// What peers send, and how long they take, has bounds.
	s.SetDeadline(time.Now().Add(10 * time.Second))
	var q question
	if err := json.NewDecoder(io.LimitReader(s, 4096)).Decode(&q); err != nil {
		return err
	}
	a := answer{Error: "division by zero"}
	if q.B != 0 {
		a = answer{Quotient: q.A / q.B, Remainder: q.A % q.B}
	}
	return json.NewEncoder(s).Encode(a)
}

// ask asks p one question. It goes with the packet that opens the stream, so
// that the answer takes one round trip.
func ask(ctx context.Context, h *plexus.Host, p peer.ID, q question) (a answer, err error) {
	s, err := h.Open(ctx, p, protocol)
	if err != nil {
		return a, err
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(10 * time.Second))
	if err := json.NewEncoder(s).Encode(q); err != nil {
		return a, err
	}
	if err := json.NewDecoder(io.LimitReader(s, 4096)).Decode(&a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run lets two nodes of this process, X and Y, meet.
func run(ctx context.Context, out io.Writer) error {
	loopback := node.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}}
	x, err := node.New(loopback)
	if err != nil {
		return err
	}
	defer x.Close()
	y, err := node.New(loopback)
	if err != nil {
		return err
	}
	defer y.Close()
	y.Handle(protocol, serve)
	if _, err := x.Dial(ctx, y.Info()); err != nil {
		return err
	}
	for _, q := range []question{{17, 5}, {100, 7}, {1, 0}} {
		if a, err := ask(ctx, x, y.ID(), q); err != nil {
			fmt.Fprintf(out, "%d / %d: %v\n", q.A, q.B, err)
		} else {
			fmt.Fprintf(out, "%d / %d = %d, remainder %d\n", q.A, q.B, a.Quotient, a.Remainder)
		}
	}
	return nil
}

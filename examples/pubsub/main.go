// Command pubsub has two hosts in a topic: what one publishes, the other reads.
//
//	go run ./examples/pubsub
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// join has a host join the topic "weather", until it closes.
func join(h *plexus.Host) (*pubsub.Topic, error) {
	ps, err := pubsub.New(h, gossipsub.Must(gossipsub.Default()), pubsub.Config{})
	if err != nil {
		return nil, err
	}
	return ps.Join("weather", pubsub.TopicConfig{})
}

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
	here, err := join(x)
	if err != nil {
		return err
	}
	there, err := join(y)
	if err != nil {
		return err
	}

	// y receives from here on. Its neighbours hear of it when they connect.
	sub := there.Subscribe()
	if _, err := x.Dial(ctx, y.Info()); err != nil {
		return err
	}
	if err := here.Wait(ctx, 1); err != nil {
		return err
	}
	receipt, err := here.Publish(ctx, []byte("it rains"))
	if err != nil {
		return err // such as pubsub.ErrNoPeers: nobody heard it
	}
	fmt.Fprintln(out, "neighbours that took it:", receipt.Peers)

	m, err := sub.Next(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, says x: %v\n", m.Data, m.From == x.ID()) // its signature has been checked
	return nil
}

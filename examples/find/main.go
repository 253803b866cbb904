// Command find has three hosts in a line, with nothing but pubsub between them: the
// first finds the third, what it provides, and what it says under its name.
//
//	go run ./examples/find
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/routing"
	"github.com/plexus-p2p/plexus/routing/gossip"
	"github.com/plexus-p2p/plexus/routing/ipns"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// route has a host route by pubsub, until it closes.
func route(h *plexus.Host) (routing.Router, error) {
	ps, err := pubsub.New(h, gossipsub.Must(gossipsub.Default()), pubsub.Config{})
	if err != nil {
		return nil, err
	}
	return gossip.New(h, ps, gossip.Config{Validator: routing.Namespaces{ipns.Prefix: ipns.Validator{}}})
}

func run(ctx context.Context, out io.Writer) error {
	var hosts [3]*plexus.Host
	var routers [3]routing.Router
	for i := range hosts {
		var err error
		if hosts[i], err = node.New(node.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}}); err != nil {
			return err
		}
		defer hosts[i].Close()
		if routers[i], err = route(hosts[i]); err != nil {
			return err
		}
		if i > 0 {
			if _, err := hosts[i].Dial(ctx, hosts[i-1].Info()); err != nil {
				return err
			}
		}
	}
	first, third := routers[0], routers[2]

	// The third provides something, and signs a path under its ID.
	sum, err := multihash.Sum([]byte("a recipe for bread"), multihash.SHA2_256, -1)
	if err != nil {
		return err
	}
	if err := third.Provide(ctx, sum); err != nil {
		return err
	}
	key := hosts[2].Key()
	record, err := ipns.Seal(key, ipns.Record{Value: "/ipfs/bafkqaaa", Sequence: 1, Until: time.Now().Add(time.Hour)})
	if err != nil {
		return err
	}
	if err := third.Put(ctx, ipns.Key(key.ID()), record); err != nil {
		return err
	}

	// The first knows nothing of it but the hash and the ID.
	for p, err := range first.FindProviders(ctx, sum) {
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "the third provides it:", p.ID == key.ID())
		break // one is enough
	}
	info, err := first.FindPeer(ctx, key.ID())
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "and is found at an address:", len(info.Addrs) > 0)
	for value, err := range first.Search(ctx, ipns.Key(key.ID())) {
		if err != nil {
			return err
		}
		r, err := ipns.Open(key.ID(), value, time.Now())
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "it says:", r.Value)
		break // a better one might follow
	}
	return nil
}

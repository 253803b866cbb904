// Command fullnode makes a node with all transports and prints its ID. Its size is
// a figure that a test holds.
package main

import (
	"fmt"
	"log"

	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/node/full"
)

func main() {
	h, err := node.New(node.Config{Transports: full.Transports})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	fmt.Println(h.ID())
}

// Command quicnode makes a default node, with TCP and QUIC, and prints its ID. Its
// size is a figure that a test holds.
package main

import (
	"fmt"
	"log"

	"github.com/plexus-p2p/plexus/node"
)

func main() {
	h, err := node.New(node.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	fmt.Println(h.ID())
}

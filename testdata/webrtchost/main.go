// Command webrtchost makes a host with WebRTC-direct and prints its ID. Its
// size is a figure that a test holds.
package main

import (
	"fmt"
	"log"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/webrtc"
)

func main() {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		log.Fatal(err)
	}
	h, err := plexus.New(plexus.Config{
		Key:      key,
		Sessions: []transport.Sessions{&webrtc.Transport{Key: key}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	fmt.Println(h.ID())
}

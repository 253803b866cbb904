// Command tcphost makes a host with TCP, Noise and yamux and prints its ID. Its
// size is a figure that a test holds.
package main

import (
	"fmt"
	"log"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
)

func main() {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		log.Fatal(err)
	}
	h, err := plexus.New(plexus.Config{
		Key:      key,
		Pipes:    []transport.Pipes{&tcp.Transport{}},
		Security: []security.Protocol{&noise.Protocol{}},
		Muxers:   []muxer.Muxer{&yamux.Muxer{}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	fmt.Println(h.ID())
}

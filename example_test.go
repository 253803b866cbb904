package plexus_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"math"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/simnet"
)

// Datagrams are for what is worth nothing when it comes late. They belong to the
// connection, not to a stream: a stream says what they will be, and stays open while
// they come.
func ExampleConn_SendDatagram() {
	network := simnet.New(simnet.Config{})
	defer network.Close()
	start := func(ip string) *plexus.Host {
		h, err := node.New(node.Config{Network: network.Host(ip), Listen: []string{"/ip4/" + ip + "/udp/4001/quic-v1"}})
		if err != nil {
			log.Fatal(err)
		}
		return h
	}
	boat, shore := start("10.0.0.1"), start("10.0.0.2")
	defer shore.Close()
	defer boat.Close()

	const course = "/boat/course/1.0.0" // a datagram is the course in degrees, as a float64
	shore.Handle(course, func(ctx context.Context, s *plexus.Stream) error {
		b, err := s.Conn().ReceiveDatagram(ctx)
		if err != nil {
			return err // over TCP it is errors.ErrUnsupported
		}
		fmt.Printf("the boat heads for %.1f°\n", math.Float64frombits(binary.BigEndian.Uint64(b)))
		return nil
	})

	ctx := context.Background()
	c, err := boat.Dial(ctx, shore.Info())
	if err != nil {
		log.Fatal(err)
	}
	s, err := c.Open(ctx, course)
	if err != nil {
		log.Fatal(err)
	}
	s.CloseWrite() // there is no more to say: the shore learns what is coming
	if err := c.SendDatagram(binary.BigEndian.AppendUint64(nil, math.Float64bits(271.5))); err != nil {
		log.Fatal(err)
	}
	s.Read(make([]byte, 1)) // until the shore has seen it
	// Output: the boat heads for 271.5°
}

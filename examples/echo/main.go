// Command echo says something to a peer, who says it back.
//
//	go run ./examples/echo                # in one terminal: prints an address
//	go run ./examples/echo ADDR hello     # in another
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
)

const protocol = "/echo/1.0.0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return listen(ctx, out)
	}
	return say(ctx, args[0], strings.Join(args[1:], " "), out)
}

// listen echoes what peers say until ctx ends.
func listen(ctx context.Context, out io.Writer) error {
	// This machine alone; with /ip4/0.0.0.0/tcp/0 others reach it too.
	h, err := node.New(node.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		return err
	}
	defer h.Close()
	h.Handle(protocol, func(ctx context.Context, s *plexus.Stream) error {
		_, err := io.Copy(s, s) // a stream is a net.Conn
		return err
	})
	for _, addr := range h.Info().Full() {
		fmt.Fprintln(out, addr)
	}
	<-ctx.Done()
	return nil
}

// say connects to a peer, says something, and prints the answer.
func say(ctx context.Context, addr, text string, out io.Writer) error {
	info, err := peer.ParseAddrInfo(addr)
	if err != nil {
		return err
	}
	h, err := node.New(node.Config{Listen: []string{}})
	if err != nil {
		return err
	}
	defer h.Close()
	conn, err := h.Dial(ctx, info)
	if err != nil {
		return err
	}
	s, err := conn.Open(ctx, protocol)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Fprintln(s, text)
	s.CloseWrite() // that was all: the peer's io.Copy ends
	_, err = io.Copy(out, s)
	return err
}

// Command http serves a website to peers: no port to open, no certificate, and
// both sides know for certain who the other is.
//
//	go run ./examples/http          # serves, and prints an address
//	go run ./examples/http ADDR     # fetches the front page
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"

	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
)

const protocol = "/http/1.1" // HTTP over a stream, as other libp2p programs speak it

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return serve(ctx, out)
	}
	return get(ctx, args[0], out)
}

func serve(ctx context.Context, out io.Writer) error {
	h, err := node.New(node.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		return err
	}
	defer h.Close()
	site := http.NewServeMux()
	site.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello, %s!\n", r.RemoteAddr) // a peer ID, proved
	})
	// Streams are net.Conns, so what serves a net.Listener serves peers.
	l := h.Listener(protocol)
	context.AfterFunc(ctx, func() { l.Close() })
	fmt.Fprintln(out, h.Info().Full()[0])
	if err := http.Serve(l, site); ctx.Err() == nil {
		return err
	}
	return nil
}

func get(ctx context.Context, addr string, out io.Writer) error {
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
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return conn.Open(ctx, protocol)
		},
	}}
	resp, err := client.Get("http://" + info.ID.String() + "/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(out, resp.Body)
	return err
}

// Command gossipsub-interop is a node of the gossipsub-interop test plan.
//
//	gossipsub-interop --params params.json
//
// Its number is in its hostname, node0 and so on; it listens on TCP port 9000, and finds
// others by theirs. Where many run on one machine, they are told instead:
//
//	gossipsub-interop --params params.json --node 0 --listen /ip4/127.0.0.1/tcp/0 --peers -
//
// prints "Listening" with its address, and reads lines "NODE ADDR" until an empty one.
//
// Spec: https://github.com/libp2p/test-plans/blob/master/gossipsub-interop/test-specs/implementation.md
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub/scenario"
)

func main() {
	start := time.Now()
	if err := run(context.Background(), start, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, start time.Time, args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("gossipsub-interop", flag.ContinueOnError)
	params := flags.String("params", "", "the script, a file of JSON")
	number := flags.Int("node", -1, "the node's number; -1: as the hostname says")
	listen := flags.String("listen", "/ip4/0.0.0.0/tcp/9000", "where to listen")
	peers := flags.String("peers", "", "where others are: a file of lines NODE ADDR, or - for the input; empty: as their hostnames say")
	if err := flags.Parse(args); err != nil {
		return err
	}
	f, err := os.Open(*params)
	if err != nil {
		return err
	}
	script, err := scenario.Read(f)
	f.Close()
	if err != nil {
		return err
	}
	if *number < 0 {
		name, err := os.Hostname()
		if err != nil {
			return err
		}
		if _, err := fmt.Sscanf(name, "node%d", number); err != nil {
			return fmt.Errorf("the hostname %s has no number: %w", name, err)
		}
	}
	h, err := node.New(node.Config{Key: scenario.Key(*number), Listen: []string{*listen}})
	if err != nil {
		return err
	}
	defer h.Close()
	log := slog.New(slog.NewJSONHandler(out, nil))
	where := resolve
	if *peers != "" {
		log.Info("Listening", "addr", h.Addrs()[0].String())
		table, err := read(*peers, in)
		if err != nil {
			return err
		}
		where = func(_ context.Context, n int) (ma.Multiaddr, error) {
			if a := table[n]; a != nil {
				return a, nil
			}
			return nil, fmt.Errorf("nobody said where node %d is", n)
		}
		start = time.Now()
	}
	n := scenario.Node{Number: *number, Host: h, Start: start, Log: log, Dial: func(ctx context.Context, to int) error {
		a, err := where(ctx, to)
		if err != nil {
			return err
		}
		_, err = h.Dial(ctx, peer.AddrInfo{ID: scenario.Key(to).ID(), Addrs: []ma.Multiaddr{a}})
		return err
	}}
	return n.Run(ctx, script)
}

// resolve finds a node by its hostname.
func resolve(ctx context.Context, n int) (ma.Multiaddr, error) {
	ips, err := net.DefaultResolver.LookupHost(ctx, fmt.Sprintf("node%d", n))
	if err != nil {
		return nil, err
	}
	return ma.NewMultiaddr(fmt.Sprintf("/ip4/%s/tcp/9000", ips[0]))
}

// read reads where nodes are.
func read(name string, in io.Reader) (map[int]ma.Multiaddr, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	table := make(map[int]ma.Multiaddr)
	for lines := bufio.NewScanner(in); lines.Scan() && lines.Text() != ""; {
		var n int
		var addr string
		if _, err := fmt.Sscan(lines.Text(), &n, &addr); err != nil {
			return nil, fmt.Errorf("%q is not NODE ADDR: %w", lines.Text(), err)
		}
		a, err := ma.NewMultiaddr(addr)
		if err != nil {
			return nil, err
		}
		table[n] = a
	}
	return table, nil
}

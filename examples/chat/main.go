// Command chat is a room: everybody reads what anybody types.
//
//	go run ./examples/chat          # opens a room and prints its address
//	go run ./examples/chat ADDR     # enters it
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
)

const protocol = "/examples/chat/1.0.0"

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run chats until in ends.
func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	h, err := node.New(node.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		return err
	}
	defer h.Close()
	room := &room{out: out, streams: make(map[*plexus.Stream]bool)}
	if len(args) == 0 {
		h.Handle(protocol, room.enter)
		fmt.Fprintln(out, h.Info().Full()[0])
	} else {
		info, err := peer.ParseAddrInfo(args[0])
		if err != nil {
			return err
		}
		conn, err := h.Dial(ctx, info)
		if err != nil {
			return err
		}
		s, err := conn.Open(ctx, protocol)
		if err != nil {
			return err
		}
		fmt.Fprintln(s, "is here") // the first bytes open the stream
		go room.enter(ctx, s)
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		room.pass(nil, lines.Text())
	}
	return lines.Err()
}

// room is the streams to those with whom we chat.
type room struct {
	out io.Writer

	mu      sync.Mutex
	streams map[*plexus.Stream]bool
}

// enter serves one of them until he leaves.
func (r *room) enter(_ context.Context, s *plexus.Stream) error {
	r.mu.Lock()
	r.streams[s] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.streams, s)
		r.mu.Unlock()
	}()
	lines := bufio.NewScanner(s) // which takes lines of up to 64 KiB
	for lines.Scan() {
		line := strings.Map(printable, lines.Text()) // it is a stranger's
		r.pass(s, s.Conn().Peer().Short()+": "+line)
	}
	return lines.Err()
}

func printable(r rune) rune {
	if !unicode.IsPrint(r) {
		return -1
	}
	return r
}

// pass passes a line on to everybody but him from whom it comes.
func (r *room) pass(from *plexus.Stream, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.streams {
		if s != from {
			s.SetWriteDeadline(time.Now().Add(time.Second)) // who does not read, misses it
			fmt.Fprintln(s, line)
		}
	}
	if from != nil {
		fmt.Fprintln(r.out, line)
	}
}

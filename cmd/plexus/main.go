// Command plexus runs a libp2p node and looks at others from the command line.
//
//	plexus demo           two hosts meet and talk, stage by stage
//	plexus up             a node, until ^C
//	plexus ping ADDR      how long a round trip takes
//	plexus id ADDR        who is there
//	plexus perf ADDR      how fast bytes go
//	plexus explain ADDR   how connecting goes, drawn
//	plexus cat ADDR PROTO standard input and output, connected to a stream
//	plexus pub TOPIC      publish messages
//	plexus sub TOPIC      print messages
//	plexus chat TOPIC     chat
//	plexus topic TOPIC    mesh, scores and rates, live
//	plexus key new FILE   identities
//
// Each verb is a file of that name. cli.go reads the command line, connect.go
// makes the node and connects it, out.go prints text or JSON, and fail.go turns an
// error into one line.
//
// Results go to standard output, everything else to standard error. The exit
// status is 0 only on success, 2 if the command line is wrong, else 1.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second ^C ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

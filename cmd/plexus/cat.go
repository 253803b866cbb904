package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/plexus-p2p/plexus"
)

type catCmd struct {
	Addr  string `arg:"" name:"ADDR" help:"The node."`
	Proto string `arg:"" name:"PROTO" help:"The protocol, such as /plexus/echo/1.0.0."`
}

func (catCmd) Help() string {
	return `What comes in by standard input goes to the stream, what comes from the stream goes to
standard output. The end of the input closes the stream for writing; cat ends when the peer
closes its side.

Examples:

  echo hello | plexus cat ADDR /plexus/echo/1.0.0
  plexus cat ADDR /my/backup/1.0.0 < backup.tar`
}

func (c *catCmd) Run(e *env) error {
	if c.Proto == "" {
		return &failure{Kind: kindUsage, Text: "PROTO is empty"}
	}
	cl, err := e.connect(c.Addr)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := e.within()
	defer cancel()
	what := fmt.Sprintf("open %s at %s", c.Proto, c.Addr)
	s, err := cl.conn.Open(ctx, c.Proto)
	if err != nil {
		return tried(what, err)
	}
	stop := context.AfterFunc(e.ctx, func() { s.Reset(plexus.CodeNone) })
	defer stop()

	up := make(chan error, 1)
	go func() { // ends with the input; with the process, where that is a terminal
		_, err := io.Copy(s, e.stdin)
		if cerr := s.CloseWrite(); err == nil {
			err = cerr
		}
		up <- err
	}()
	_, err = io.Copy(e.stdout, s)
	switch {
	case e.ctx.Err() != nil:
		return e.ctx.Err()
	case err != nil:
		return tried(what, err)
	}
	select {
	case err = <-up:
	default: // the peer has closed, and so do we: the rest of the input is for nobody
	}
	if err != nil && !errors.Is(err, plexus.ErrClosed) {
		return tried("send everything to "+c.Addr, err)
	}
	return s.Close()
}

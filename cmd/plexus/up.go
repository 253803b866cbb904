package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/perf"
)

// echo is the protocol by which up sends back what it gets.
const echo = "/plexus/echo/1.0.0"

type upCmd struct {
	Listen []string `short:"l" placeholder:"ADDR" sep:"none" help:"Listen there; may be repeated. Default: a free TCP port of every interface."`
	Perf   bool     `help:"Serve perf too: anybody may then have this node send and receive as fast as it can."`
}

func (upCmd) Help() string {
	return `Prints the peer ID, then each address by which others reach the node, a line each. It serves
ping, identify and /plexus/echo/1.0.0, until ^C or SIGTERM. With -v, connections are printed as
they come and go. The file of --key is made if there is none.

Examples:

  plexus up
  plexus up --key me.key --listen /ip4/0.0.0.0/tcp/4001 --listen /ip6/::/tcp/4001
  plexus up --perf -l /ip4/127.0.0.1/tcp/0 -v`
}

// me is the first line of a node: who it is.
type me struct {
	Peer peer.ID `json:"peer"`
}

func (me) event() string         { return "peer" }
func (r me) text(s style) string { return s.bold(r.Peer.String()) }

// listens is one of the lines that follow: where it is.
type listens struct {
	Addr string `json:"addr"`
}

func (listens) event() string         { return "listen" }
func (r listens) text(s style) string { return r.Addr }

// visit is a connection that came or went.
type visit struct {
	what     string
	Peer     peer.ID `json:"peer"`
	Addr     string  `json:"addr"`
	Inbound  bool    `json:"inbound"`
	Security string  `json:"security"`
	Muxer    string  `json:"muxer"`
	Agent    string  `json:"agent,omitempty"`
	Lasted   millis  `json:"lasted_ms,omitempty"`
	Error    string  `json:"error,omitempty"`
}

func (r visit) event() string { return r.what }

func (r visit) text(s style) string {
	direction := "to"
	if r.Inbound {
		direction = "from"
	}
	switch r.what {
	case "connected":
		return s.green("+ connected    ") + r.Peer.String() + " " + direction + " " + r.Addr + " (" + stack(r.Security, r.Muxer) + ")"
	case "identified":
		return s.dim("  identified   ") + r.Peer.String() + " is " + clean(r.Agent)
	}
	line := s.red("- disconnected ") + r.Peer.String() + " after " + r.Lasted.String()
	if r.Error != "" {
		line += ": " + clean(r.Error)
	}
	return line
}

func visitOf(what string, c *plexus.Conn) visit {
	return visit{
		what: what, Peer: c.Peer(), Addr: c.RemoteAddr().String(), Inbound: c.Inbound(),
		Security: c.Security(), Muxer: c.Muxer(),
	}
}

func (c *upCmd) Run(e *env) error {
	for _, a := range c.Listen {
		if _, err := ma.NewMultiaddr(a); err != nil {
			return badAddr(a, err)
		}
	}
	h, err := e.node(node.Config{KeyFile: e.Key, Listen: c.Listen, Logger: e.logger(slog.LevelWarn)})
	if op, ok := errors.AsType[*plexus.OpError](err); ok {
		return tried("listen on "+op.Addr.String(), op.Err)
	}
	if err != nil {
		return err
	}
	h.Handle(echo, func(_ context.Context, s *plexus.Stream) error {
		_, err := io.Copy(s, s)
		return err
	})
	if c.Perf {
		perf.Serve(h)
	}
	e.out.print(me{h.ID()})
	for _, a := range h.Info().Full() {
		e.out.print(listens{a.String()})
	}
	e.hint("Elsewhere: plexus ping, id, perf, explain or cat, with one of these addresses. ^C ends this node.")
	var watching sync.WaitGroup
	if e.Verbose {
		events := h.Watch(e.ctx)
		watching.Go(func() { // ends with e.ctx
			for ev := range events {
				watch(e.out, ev)
			}
		})
	}
	<-e.ctx.Done()
	watching.Wait()
	return h.Close()
}

// watch prints an event of a node.
func watch(out *printer, ev plexus.Event) {
	switch ev := ev.(type) {
	case plexus.Connected:
		out.print(visitOf("connected", ev.Conn))
	case plexus.Identified:
		v := visitOf("identified", ev.Conn)
		v.Agent = ev.Conn.Identity().Agent
		out.print(v)
	case plexus.Disconnected:
		v := visitOf("disconnected", ev.Conn)
		v.Lasted = millis(time.Since(ev.Conn.Since()))
		if ev.Err != nil {
			v.Error = strings.TrimPrefix(ev.Err.Error(), "plexus: ")
		}
		out.print(v)
	}
}

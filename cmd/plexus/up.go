package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/autotls"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/perf"
)

// echo is the protocol by which up sends back what it gets.
const echo = "/plexus/echo/1.0.0"

type upCmd struct {
	Listen  []string `short:"l" placeholder:"ADDR" sep:"none" help:"Listen there; may be repeated. Default: every interface, by every transport, on one TCP and one UDP port."`
	Port    uint16   `short:"p" placeholder:"PORT" help:"The port of the default addresses. Default: a free one."`
	Cert    string   `placeholder:"FILE" type:"existingfile" help:"Listen for WebSocket over TLS too, with this certificate chain (PEM)."`
	CertKey string   `placeholder:"FILE" type:"existingfile" help:"The private key of --cert (PEM). Default: it is in the same file."`
	AutoTLS string   `name:"autotls" placeholder:"DIR" type:"path" help:"Get a certificate that browsers trust, from Let's Encrypt by way of libp2p.direct, once the node has a public address; keep it in DIR. Agrees to the terms of Let's Encrypt; needs --key."`
	PrintJS bool     `name:"print-js" help:"Print, instead of addresses, a JavaScript module by which a browser connects."`
	Perf    bool     `help:"Serve perf too: anybody may then have this node send and receive as fast as it can."`
}

func (upCmd) Help() string {
	return `Prints the peer ID, then each address by which others reach the node, a line each. It serves
ping, identify and /plexus/echo/1.0.0, until ^C or SIGTERM. With -v, connections are printed as
they come and go. The file of --key is made if there is none.

Examples:

  plexus up
  plexus up --key me.key --port 4001
  plexus up --perf -l /ip4/127.0.0.1/tcp/0 -v
  plexus up --print-js > node.js
  plexus up --key me.key --port 4001 --autotls certs`
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

// whereabouts prints who a node is and where.
func whereabouts(out *printer, i peer.AddrInfo) {
	out.print(me{i.ID})
	for _, a := range i.Full() {
		out.print(listens{a.String()})
	}
}

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
		return s.green("+ connected    ") + r.Peer.String() + " " + direction + " " + r.Addr + " (" + stack(r.Addr, r.Security, r.Muxer) + ")"
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
	cfg := node.Config{KeyFile: e.Key, Listen: c.Listen, Port: c.Port, Logger: e.logger(slog.LevelWarn)}
	auto, err := c.certificates(e, &cfg)
	if err != nil {
		return err
	}
	h, err := e.node(cfg)
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
	var working sync.WaitGroup
	if auto != nil {
		auto.start(h)
		working.Go(func() { auto.Run(e.ctx) }) // ends with e.ctx
	}
	if err := c.tell(e, h.Info()); err != nil {
		return err
	}
	if e.Verbose {
		events := h.Watch(e.ctx)
		working.Go(func() { // ends with e.ctx
			for ev := range events {
				watch(e.out, ev)
			}
		})
	}
	<-e.ctx.Done()
	working.Wait()
	return h.Close()
}

// certificates are for WebSocket over TLS, if any are asked for.
func (c *upCmd) certificates(e *env, cfg *node.Config) (*auto, error) {
	switch {
	case c.CertKey != "" && c.Cert == "":
		return nil, &failure{Kind: kindUsage, Text: "--cert-key is given, but no --cert"}
	case c.AutoTLS != "" && (c.Cert != "" || e.Key == ""):
		return nil, &failure{Kind: kindUsage, Text: "--autotls needs --key, as the certificate is for an identity that stays, and no --cert"}
	case c.Cert != "":
		cert, err := tls.LoadX509KeyPair(c.Cert, cmp.Or(c.CertKey, c.Cert))
		if err != nil {
			return nil, fmt.Errorf("--cert %s: %w", c.Cert, err)
		}
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	case c.AutoTLS != "":
		return newAuto(e, c.AutoTLS, cfg)
	}
	return nil, nil
}

// auto keeps a certificate of the node fresh.
type auto struct {
	*autotls.Client
	e *env
	h *plexus.Host // since start
}

func newAuto(e *env, dir string, cfg *node.Config) (a *auto, err error) {
	if cfg.Key, err = peer.LoadOrCreateKey(e.Key); err != nil {
		return nil, err
	}
	a = &auto{e: e}
	a.Client, err = autotls.New(autotls.Config{
		Key: cfg.Key, Dir: dir, UserAgent: "plexus/" + version(), Logger: e.logger(slog.LevelWarn),
		Addrs:  func() []ma.Multiaddr { return a.h.Addrs() },
		Notify: func(*x509.Certificate) { a.tell() },
	})
	if err != nil {
		return nil, err
	}
	cfg.TLS = &tls.Config{GetCertificate: a.GetCertificate}
	return a, nil
}

// start has the host tell only those addresses for which there is a certificate.
func (a *auto) start(h *plexus.Host) {
	a.h = h
	h.Announce(a.Addrs)
}

// tell prints the addresses that have come with a certificate.
func (a *auto) tell() {
	a.h.Announce(a.Addrs)
	for _, addr := range a.h.Info().Full() {
		if _, err := addr.ValueForProtocol(ma.P_SNI); err == nil {
			a.e.out.print(listens{addr.String()})
		}
	}
}

// tell prints how others get to the node.
func (c *upCmd) tell(e *env, info peer.AddrInfo) error {
	if c.PrintJS {
		js, err := newScript(info)
		if err != nil {
			return err
		}
		e.out.print(js)
		if err := e.out.failed(); err != nil {
			return err
		}
		e.hint("A module for browsers, which says how to use it. ^C ends this node.")
		return nil
	}
	whereabouts(e.out, info)
	if err := e.out.failed(); err != nil {
		return err
	}
	e.hint("Elsewhere: plexus ping, id, perf, explain or cat, with one of these addresses. ^C ends this node.")
	return nil
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

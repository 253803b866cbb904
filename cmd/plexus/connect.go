package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/mplex"
	"github.com/plexus-p2p/plexus/muxer/yamux"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/node/full"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/security/plaintext"
	"github.com/plexus-p2p/plexus/security/pnet"
	"github.com/plexus-p2p/plexus/security/tls"
)

// node makes a node of what the flags say and cfg has on top.
func (e *env) node(cfg node.Config) (*plexus.Host, error) {
	if cfg.Security == nil {
		cfg.Security = e.securities()
	}
	if cfg.Muxers == nil {
		cfg.Muxers = e.muxers()
	}
	if cfg.Network == nil {
		cfg.Network = e.network
	}
	if cfg.Transports == nil {
		cfg.Transports = full.Transports
	}
	if e.SwarmKey != "" {
		var err error
		if cfg.Private, err = pnet.LoadKey(e.SwarmKey); err != nil {
			return nil, err
		}
	}
	cfg.Agent = "plexus/" + version()
	cfg.Limits.DialTimeout = e.Timeout
	if e.Timeout == 0 {
		cfg.Limits.DialTimeout = -1 // none
	}
	if cfg.Logger == nil {
		cfg.Logger = e.logger(slog.LevelError + 1) // verbs say what failed
	}
	h, err := node.New(cfg)
	if err == nil && e.Verbose {
		h.Notify(func(ev plexus.Event) { logDial(cfg.Logger, ev) })
	}
	return h, err
}

// logDial logs each address that a dial tried, or left out.
func logDial(log *slog.Logger, ev plexus.Event) {
	d, ok := ev.(plexus.Dialed)
	if !ok {
		return
	}
	for _, a := range d.Attempts {
		args := []any{"addr", a.Addr, "start", a.Start, "took", a.Took}
		for _, s := range a.Stages {
			args = append(args, s.Stage.String(), s.Done)
		}
		if a.Err != nil {
			args = append(args, "err", a.Err)
		}
		log.Debug("dialed", args...)
	}
}

// securities are those of --security, nil without it.
func (e *env) securities() (list []security.Protocol) {
	for _, name := range e.Security {
		switch name {
		case "noise":
			list = append(list, &noise.Protocol{})
		case "tls":
			list = append(list, &tls.Protocol{})
		case "plaintext":
			list = append(list, &plaintext.Protocol{})
		}
	}
	return list
}

// muxers are those of --muxer, nil without it.
func (e *env) muxers() (list []muxer.Muxer) {
	for _, name := range e.Muxer {
		switch name {
		case "yamux":
			list = append(list, &yamux.Muxer{})
		case "mplex":
			list = append(list, &mplex.Muxer{})
		}
	}
	return list
}

// logger logs to standard error, everything with -v, else from a level up.
func (e *env) logger(from slog.Level) *slog.Logger {
	if e.Verbose {
		from = slog.LevelDebug
	}
	opts := &slog.HandlerOptions{Level: from}
	if e.JSON {
		return slog.New(slog.NewJSONHandler(e.stderr, opts))
	}
	return slog.New(slog.NewTextHandler(e.stderr, opts))
}

// within is the context of one step, that ends with --timeout.
func (e *env) within() (context.Context, context.CancelFunc) {
	if e.Timeout == 0 {
		return context.WithCancel(e.ctx)
	}
	return context.WithTimeout(e.ctx, e.Timeout)
}

// client is a node that listens nowhere, and its connection to the node that a
// verb is about.
type client struct {
	*plexus.Host
	conn *plexus.Conn
	took time.Duration // to connect
}

// connect makes a client connected to addr. Close it.
func (e *env) connect(addr string) (*client, error) {
	to, err := parseAddr(addr)
	if err != nil {
		return nil, err
	}
	h, err := e.dialer(node.Config{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := e.within()
	defer cancel()
	begin := time.Now()
	conn, err := h.Dial(ctx, to)
	if err != nil {
		h.Close()
		return nil, tried("connect to "+addr, err)
	}
	return &client{h, conn, time.Since(begin)}, nil
}

// connection is the first that ping and perf print.
type connection struct {
	Peer     peer.ID `json:"peer"`
	Addr     string  `json:"addr"`
	Security string  `json:"security"`
	Muxer    string  `json:"muxer"`
	Took     millis  `json:"connect_ms"`
}

func connected(c *client) connection {
	return connection{c.conn.Peer(), c.conn.RemoteAddr().String(), c.conn.Security(), c.conn.Muxer(), millis(c.took)}
}

func (connection) event() string { return "connected" }

func (r connection) text(s style) string {
	return fmt.Sprintf("%s at %s\n%s", s.bold(r.Peer.String()), r.Addr, s.dim(fmt.Sprintf("connected by %s in %s", stack(r.Addr, r.Security, r.Muxer), r.Took)))
}

// stack names what a connection is made of. Where the transport brings all of it, its
// name says so.
func stack(addr, security, muxer string) string {
	if security != "" {
		return security + ", " + muxer
	}
	a, err := ma.NewMultiaddr(addr)
	if err != nil {
		return ""
	}
	name := ""
	for _, c := range a {
		if c.Protocol().Size == 0 {
			name = "/" + c.Protocol().Name
		}
	}
	return name
}

// dialer makes a node that listens nowhere. The file of --key must exist.
func (e *env) dialer(cfg node.Config) (*plexus.Host, error) {
	if e.Key != "" {
		key, err := peer.LoadKey(e.Key)
		if err != nil {
			return nil, err
		}
		cfg.Key = key
	}
	cfg.Listen = []string{}
	return e.node(cfg)
}

// parseAddr reads ADDR. It may lack its /p2p part, and then the ID is "".
func parseAddr(s string) (peer.AddrInfo, error) {
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return peer.AddrInfo{}, badAddr(s, err)
	}
	if _, id := peer.SplitAddr(a); id == "" {
		return peer.AddrInfo{Addrs: []ma.Multiaddr{a}}, nil
	}
	infos, err := peer.AddrInfos(a)
	if err != nil {
		return peer.AddrInfo{}, badAddr(s, err)
	}
	if len(infos[0].Addrs) == 0 {
		return peer.AddrInfo{}, badAddr(s, errNowhere)
	}
	return infos[0], nil
}

// parseAddrs reads several ADDRs of one node.
func parseAddrs(all []string) (to peer.AddrInfo, err error) {
	for _, s := range all {
		info, err := parseAddr(s)
		if err != nil {
			return to, err
		}
		if info.ID != "" && to.ID != "" && info.ID != to.ID {
			return to, &failure{Kind: kindUsage, Text: "the addresses are of two nodes: " + to.ID.String() + " and " + info.ID.String()}
		}
		to.ID = cmp.Or(to.ID, info.ID)
		to.Addrs = append(to.Addrs, info.Addrs...)
	}
	return to, nil
}

var errNowhere = errors.New("it says who, but not where: put an address before /p2p")

// badAddr says that s is not an address and, where it can be guessed, what was meant.
func badAddr(s string, err error) error {
	why := strings.TrimPrefix(err.Error(), fmt.Sprintf("failed to parse multiaddr %q: ", s))
	why, _, _ = strings.Cut(why, ": failed to parse") // what follows repeats the value
	if hint := multiaddrFor(s); hint != "" {
		why = "did you mean " + hint + "?"
	}
	return &failure{Kind: kindAddress, Text: clean(fmt.Sprintf("%q is not an address: %s", s, why))}
}

// multiaddrFor guesses the multiaddr of what people write instead, or "".
func multiaddrFor(s string) string {
	if _, err := peer.Parse(s); err == nil {
		return "/ip4/…/tcp/…/p2p/" + s
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return ""
	}
	proto := "ip6"
	if ip, err := netip.ParseAddr(host); err != nil {
		proto = "dns"
	} else if ip.Is4() {
		proto = "ip4"
	}
	s = "/" + proto + "/" + host + "/tcp/" + port
	if _, err := ma.NewMultiaddr(s); err != nil {
		return ""
	}
	return s
}

// version of the program, as far as the build knows it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

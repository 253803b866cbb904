package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
)

type idCmd struct {
	Addr string `arg:"" name:"ADDR" help:"The node."`
}

func (idCmd) Help() string {
	return `Connects, and prints what the node tells of itself by the identify protocol, and what the
connection itself proves.

Examples:

  plexus id /ip4/192.0.2.7/tcp/4001
  plexus id --security tls --json ADDR | jq -r '.protocols[]'`
}

// identity is who answered.
type identity struct {
	Peer      peer.ID  `json:"peer"`
	CID       string   `json:"cid"`
	KeyType   string   `json:"key_type"`
	PublicKey string   `json:"public_key"`
	Agent     string   `json:"agent"`
	Version   string   `json:"protocol_version"`
	Protocols []string `json:"protocols"`
	Addrs     []string `json:"addrs"`
	Signed    bool     `json:"signed"`
	Observed  string   `json:"observed"`
	Remote    string   `json:"remote"`
	Security  string   `json:"security"`
	Muxer     string   `json:"muxer"`
	Connect   millis   `json:"connect_ms"`
}

func (identity) event() string { return "identity" }

func (r identity) text(s style) string {
	var b strings.Builder
	row := func(name string, values ...string) {
		for i, v := range values {
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(&b, "%s  %s\n", s.dim(pad(name, 10)), v)
		}
	}
	orNone := func(v string) string {
		if v == "" {
			return s.dim("it does not say")
		}
		return clean(v)
	}
	row("peer", s.bold(r.Peer.String()), r.CID)
	row("key", r.KeyType+"  "+s.dim(r.PublicKey))
	row("agent", orNone(r.Agent))
	row("network", orNone(r.Version))
	addrs := "in a record that it signed"
	if !r.Signed {
		addrs = "not signed"
	}
	row("addresses", append([]string{fmt.Sprintf("%d, %s", len(r.Addrs), addrs)}, r.Addrs...)...)
	row("observed", orNone(r.Observed)+s.dim("  how it sees us"))
	row("connection", fmt.Sprintf("%s (%s) in %s", r.Remote, stack(r.Remote, r.Security, r.Muxer), r.Connect))
	protos := make([]string, len(r.Protocols))
	for i, p := range r.Protocols {
		protos[i] = clean(p)
	}
	row("protocols", append([]string{fmt.Sprint(len(protos))}, protos...)...)
	return strings.TrimSuffix(b.String(), "\n")
}

func (c *idCmd) Run(e *env) error {
	cl, err := e.connect(c.Addr)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := e.within()
	defer cancel()
	r, err := whoIs(ctx, cl.conn)
	if err != nil {
		return tried("identify "+c.Addr, wait("it did not tell who it is", e.Timeout, err))
	}
	r.Connect = millis(cl.took)
	e.out.print(r)
	return nil
}

// whoIs waits until the peer has told of itself.
func whoIs(ctx context.Context, conn *plexus.Conn) (identity, error) {
	id, err := conn.WaitIdentity(ctx)
	if err != nil {
		return identity{}, err
	}
	r := identity{
		Peer: conn.Peer(), CID: conn.Peer().CID(),
		KeyType: conn.Key().Type().String(), PublicKey: base64.StdEncoding.EncodeToString(conn.Key().Raw()),
		Agent: id.Agent, Version: id.Version, Protocols: slices.Sorted(slices.Values(id.Protocols)), Signed: id.Signed,
		Remote: conn.RemoteAddr().String(), Security: conn.Security(), Muxer: conn.Muxer(),
		Addrs: make([]string, len(id.Addrs)),
	}
	for i, a := range id.Addrs {
		r.Addrs[i] = a.String()
	}
	if id.Observed != nil {
		r.Observed = id.Observed.String()
	}
	return r, nil
}

package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/transport"
)

type explainCmd struct {
	Addr []string `arg:"" name:"ADDR" help:"The node; several addresses of it are raced."`
}

func (explainCmd) Help() string {
	return `Resolves names, tries the addresses as any node would, and draws each step as a bar on one
time axis, with the reason why an address failed or was not needed.

Examples:

  plexus explain /dnsaddr/bootstrap.libp2p.io
  plexus explain --security tls,noise /ip4/192.0.2.7/tcp/4001
  plexus explain /ip4/192.0.2.7/tcp/4001 /ip4/192.0.2.7/udp/4001/quic-v1
  plexus explain --json ADDR | jq 'select(.event == "attempt")'`
}

// span is a part of a dial's time.
type span struct {
	Start millis `json:"start_ms"` // since the dial began
	Took  millis `json:"took_ms"`
}

// lookup is a question to the DNS.
type lookup struct {
	Name    string   `json:"name"`
	Answers []string `json:"answers"`
	span
	Error string `json:"error,omitempty"`
}

func (lookup) event() string     { return "resolve" }
func (lookup) text(style) string { return "" } // drawn with the rest

// attempt is what became of an address.
type attempt struct {
	Addr string `json:"addr"`
	Won  bool   `json:"won"`
	span
	Stages []stageSpan `json:"stages"`
	Error  string      `json:"error,omitempty"`
	Kind   kind        `json:"kind,omitempty"`
}

// stageSpan is a stage of an attempt, the last one maybe unfinished.
type stageSpan struct {
	Stage string `json:"stage"`
	span
	Done bool   `json:"done"`
	With string `json:"with,omitempty"` // the protocol in use
}

func (attempt) event() string     { return "attempt" }
func (attempt) text(style) string { return "" }

// reached is how it ended.
type reached struct {
	identity
	span // of identify
}

func (reached) event() string     { return "identity" }
func (reached) text(style) string { return "" }

func (c *explainCmd) Run(e *env) error {
	to, err := parseAddrs(c.Addr)
	if err != nil {
		return err
	}
	name := strings.Join(c.Addr, ", ")
	dns := &lookups{Network: e.network}
	if dns.Network == nil {
		dns.Network = transport.System{}
	}
	h, err := e.dialer(node.Config{Network: dns})
	if err != nil {
		return err
	}
	defer h.Close()
	var (
		mu     sync.Mutex
		dialed plexus.Dialed
	)
	defer h.Notify(func(ev plexus.Event) {
		if ev, ok := ev.(plexus.Dialed); ok {
			mu.Lock()
			dialed = ev
			mu.Unlock()
		}
	})()
	ctx, cancel := e.within()
	defer cancel()
	dns.start()
	begin := time.Now()
	conn, err := h.Dial(ctx, to)
	took := time.Since(begin)

	mu.Lock()
	tries := attempts(dialed, conn)
	mu.Unlock()
	asked := dns.all()
	for _, l := range asked {
		e.out.print(l)
	}
	for _, a := range tries {
		e.out.print(a)
	}
	w := waterfall{lookups: asked, attempts: tries}
	if err != nil {
		e.out.say("%s", w.draw(e.out.style))
		return tried("connect to "+name, err)
	}
	id, err := whoIs(ctx, conn)
	if err == nil {
		id.Connect = millis(took)
		w.who = &reached{identity: id, span: span{millis(took), millis(time.Since(begin) - took)}}
		e.out.print(w.who)
	}
	e.out.say("%s", w.draw(e.out.style))
	if err != nil {
		return tried("identify "+name, wait("it did not tell who it is", e.Timeout, err))
	}
	return nil
}

// attempts gathers what the host tells of a dial.
func attempts(d plexus.Dialed, conn *plexus.Conn) []attempt {
	var end error
	if de, ok := errors.AsType[*plexus.DialError](d.Err); ok {
		end = de.Err
	}
	all := make([]attempt, len(d.Attempts))
	for i, a := range d.Attempts {
		r := attempt{Addr: a.Addr.String(), Won: a.Err == nil && conn != nil, span: span{millis(a.Start), millis(a.Took)}}
		at := time.Duration(0)
		for _, s := range a.Stages {
			st := stageSpan{Stage: stageName(s.Stage), span: span{millis(a.Start + at), millis(s.Done - at)}, Done: true}
			if r.Won && s.Stage == plexus.StageSecure {
				st.With = conn.Security()
			} else if s.Stage == plexus.StageMux && at == 0 {
				st.Stage, st.With = stageName(plexus.StageConnect), stack(r.Addr, "", "") // all in one
			} else if r.Won && s.Stage == plexus.StageMux {
				st.With = conn.Muxer()
			}
			r.Stages = append(r.Stages, st)
			at = s.Done
		}
		if a.Err != nil {
			r.Kind, r.Error = attemptReason(a, end)
			if a.Took > at && r.Kind != kindResolve { // that is a lookup, above
				next := plexus.StageConnect
				if n := len(a.Stages); n > 0 {
					next = a.Stages[n-1].Stage + 1
				}
				r.Stages = append(r.Stages, stageSpan{Stage: stageName(next), span: span{millis(a.Start + at), millis(a.Took - at)}})
			}
		}
		all[i] = r
	}
	for _, a := range d.Spared {
		all = append(all, attempt{Addr: a.String(), Stages: []stageSpan{}, Error: "not tried", Kind: kindSpared})
	}
	return all
}

func stageName(s plexus.Stage) string {
	switch s {
	case plexus.StageSecure:
		return "security"
	case plexus.StageMux:
		return "muxer"
	case plexus.StageConnect:
		return "connect"
	}
	return "finish"
}

// lookups is a network that remembers what the DNS was asked.
type lookups struct {
	transport.Network

	mu    sync.Mutex
	begin time.Time
	asked []lookup
}

func (n *lookups) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.begin = time.Now()
}

func (n *lookups) all() []lookup {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

func (n *lookups) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	begin := time.Now()
	ips, err := n.Network.LookupNetIP(ctx, network, host)
	answers := make([]string, len(ips))
	for i, ip := range ips {
		answers[i] = ip.Unmap().String()
	}
	n.add(host, begin, answers, err)
	return ips, err
}

func (n *lookups) LookupTXT(ctx context.Context, name string) ([]string, error) {
	begin := time.Now()
	txts, err := n.Network.LookupTXT(ctx, name)
	n.add(name, begin, txts, err)
	return txts, err
}

func (n *lookups) add(name string, begin time.Time, answers []string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := lookup{Name: name, Answers: answers, span: span{millis(begin.Sub(n.begin)), millis(time.Since(begin))}}
	if err != nil {
		l.Error = err.Error()
		if dns, ok := errors.AsType[*net.DNSError](err); ok {
			l.Error = dns.Err
		}
	}
	n.asked = append(n.asked, l)
}

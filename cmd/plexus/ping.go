package main

import (
	"context"
	"fmt"
	"iter"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/ping"
)

type pingCmd struct {
	Addr     string        `arg:"" name:"ADDR" help:"The node."`
	Count    int           `short:"n" placeholder:"N" help:"Stop after so many pings. Default: at ^C."`
	Interval time.Duration `short:"i" default:"1s" placeholder:"1s" help:"From one ping to the next."`
}

func (pingCmd) Help() string {
	return `Each ping is 32 bytes there and back on one stream. ^C ends it and prints the summary.
The exit status is 0 if every ping was answered.

Examples:

  plexus ping /ip4/192.0.2.7/tcp/4001
  plexus ping -n 3 --interval 200ms /dns4/example.org/tcp/4001/p2p/12D3KooW…
  plexus ping --json -n 10 ADDR | jq .rtt_ms`
}

// pong is one ping: answered, or lost.
type pong struct {
	Seq   int    `json:"seq"`
	RTT   millis `json:"rtt_ms,omitempty"`
	Error string `json:"error,omitempty"`
	Kind  kind   `json:"kind,omitempty"`
}

func (r pong) event() string {
	if r.Error != "" {
		return "lost"
	}
	return "pong"
}

func (r pong) text(s style) string {
	if r.Error != "" {
		return fmt.Sprintf("%s %3d  %s", s.red("lost"), r.Seq, r.Error)
	}
	return fmt.Sprintf("%s %3d  %9s", s.green("pong"), r.Seq, r.RTT)
}

// pingSummary is the last line.
type pingSummary struct {
	Sent     int    `json:"sent"`
	Received int    `json:"received"`
	Loss     int    `json:"loss_percent"`
	Min      millis `json:"min_ms"`
	Avg      millis `json:"avg_ms"`
	Max      millis `json:"max_ms"`
	sum      millis
}

func (r *pingSummary) add(rtt millis) {
	if r.Received == 0 || rtt < r.Min {
		r.Min = rtt
	}
	r.Max = max(r.Max, rtt)
	r.Received++
	r.sum += rtt
	r.Avg = r.sum / millis(r.Received)
}

func (pingSummary) event() string { return "summary" }

func (r pingSummary) text(s style) string {
	line := fmt.Sprintf("\n%d sent, %d answered, %d %% lost", r.Sent, r.Received, r.Loss)
	if r.Received == 0 {
		return line
	}
	return line + fmt.Sprintf("; min %s, avg %s, max %s", r.Min, s.bold(r.Avg.String()), r.Max)
}

func (c *pingCmd) Run(e *env) error {
	if c.Count < 0 || c.Interval < 0 {
		return &failure{Kind: kindUsage, Text: "-n and --interval must not be negative"}
	}
	cl, err := e.connect(c.Addr)
	if err != nil {
		return err
	}
	defer cl.Close()
	conn := cl.conn
	e.out.print(connected(cl))

	var sum pingSummary
	var last *failure
	p := pinger{env: e, host: cl.Host, to: peer.AddrInfo{ID: conn.Peer(), Addrs: []ma.Multiaddr{conn.RemoteAddr()}}}
	defer p.stop()
	tick := time.NewTicker(max(c.Interval, 1))
	defer tick.Stop()
	for (c.Count == 0 || sum.Sent < c.Count) && e.out.failed() == nil {
		if sum.Sent > 0 {
			select {
			case <-tick.C:
			case <-e.ctx.Done():
			}
		}
		rtt, err := p.ping()
		if e.ctx.Err() != nil {
			break // ^C: this one does not count
		}
		sum.Sent++
		r := pong{Seq: sum.Sent, RTT: millis(rtt)}
		if err != nil {
			last = describe(err)
			r = pong{Seq: sum.Sent, Error: last.Text, Kind: last.Kind}
		} else {
			sum.add(r.RTT)
		}
		e.out.print(r)
		if err != nil && last.Kind == kindUnsupported {
			break // it will not learn it
		}
	}
	if sum.Sent > 0 {
		sum.Loss = 100 * (sum.Sent - sum.Received) / sum.Sent
	}
	e.out.print(sum)
	if last != nil {
		return &failure{Kind: last.Kind, Text: fmt.Sprintf("%d of %d pings to %s lost: %s", sum.Sent-sum.Received, sum.Sent, conn.Peer(), last.Text)}
	}
	return nil
}

// pinger pings on one stream, and on a new one, over a new connection where
// need be, after a ping that was lost.
type pinger struct {
	env  *env
	host *plexus.Host
	to   peer.AddrInfo

	next   func() (time.Duration, error, bool) // nil without a stream
	ended  func()
	cancel context.CancelCauseFunc // ends ping
}

func (p *pinger) ping() (time.Duration, error) {
	if p.next == nil {
		if err := p.start(); err != nil {
			return 0, err
		}
	}
	if p.env.Timeout > 0 {
		late := time.AfterFunc(p.env.Timeout, func() { p.cancel(context.DeadlineExceeded) })
		defer late.Stop()
	}
	rtt, err, ok := p.next()
	if !ok {
		err = context.Cause(p.env.ctx)
	}
	if err != nil {
		p.stop()
	}
	return rtt, err
}

func (p *pinger) start() error {
	ctx, cancel := p.env.within()
	defer cancel()
	conn, err := p.host.Dial(ctx, p.to)
	if err != nil {
		return err
	}
	ctx, p.cancel = context.WithCancelCause(p.env.ctx)
	p.next, p.ended = iter.Pull2(ping.Over(ctx, conn))
	return nil
}

func (p *pinger) stop() {
	if p.next == nil {
		return
	}
	p.ended()
	p.cancel(nil)
	p.next = nil
}

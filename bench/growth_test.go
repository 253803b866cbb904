package main

import (
	"context"
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

// TestHold: each order keeps open, echoes and counts what it says, between any two
// implementations.
func TestHold(t *testing.T) {
	for _, client := range growthStacks {
		for _, server := range growthStacks {
			t.Run(client+" to "+server, func(t *testing.T) {
				s, err := stacks[server]()
				if err != nil {
					t.Fatal(err)
				}
				addr, err := s.listen()
				if err != nil {
					t.Fatal(err)
				}
				c, err := stacks[client]()
				if err != nil {
					t.Fatal(err)
				}
				var h held
				do := func(o order) float64 {
					t.Helper()
					ops, err := growths[o.Load](&h, context.Background(), c, addr, o)
					if err != nil {
						t.Fatalf("%+v: %v", o, err)
					}
					return ops
				}
				if ops := do(order{Load: "hold connections", N: 20}); ops != 20 || len(h.conns) != 20 {
					t.Errorf("%v operations, %d connections", ops, len(h.conns))
				}
				do(order{Load: "hold streams", N: 100})
				if ops := do(order{Load: "hold streams", N: 1200}); ops != 1100 || len(h.streams) != 1200 {
					t.Errorf("%v operations, %d streams", ops, len(h.streams))
				}
				if ops := do(order{Load: "echo on streams", N: 1200, Time: 20 * time.Millisecond}); ops < 1200 {
					t.Errorf("%v echoes on 1200 streams", ops)
				}
				for _, size := range []int{1, bufSize, 4 << 20} { // the last is more than the windows hold
					if ops := do(order{Load: "echo a message", N: size, Time: 20 * time.Millisecond}); ops < 1 {
						t.Errorf("%d B: %v echoes", size, ops)
					}
				}
				for _, c := range h.conns {
					c.Close()
				}
			})
		}
	}
}

func TestPlotGrowth(t *testing.T) {
	g := &growth{name: "name", x: "things", xs: []int{1, 10, 4 << 10}}
	m := g.metric("a < b", "KiB")
	for _, v := range []float64{math.NaN(), -1, 0.02} {
		m.add(growthStacks[0], v)
		m.add(growthStacks[1], 1e3*v)
	}
	g.metric("nothing", "")
	svg := plotGrowth([]*growth{g})
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"a &lt; b, KiB", ">4Ki<", ">0.01<", ">100<"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in %s", want, svg)
		}
	}
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Error(svg)
	}
	g.metrics = g.metrics[:1]
	if table := growthTables([]*growth{g}); !strings.Contains(table, "| 4096 | 0.02 / 20.0 |") || !strings.Contains(table, "| 1 | – / – |") {
		t.Error(table)
	}
}

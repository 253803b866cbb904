package pubsubsim

import (
	"math/rand/v2"
	"time"
)

// A World is where nodes are and how they are connected, as the gossipsub-interop
// test plan has it: eight regions with the latencies between them, and of five nodes one
// with 1024 Mbit/s and four with 50.
//
// https://github.com/libp2p/test-plans/blob/master/gossipsub-interop/network_graph.py
type World struct {
	rand    *rand.Rand
	regions []int // of the nodes
}

// NewWorld makes a world.
func NewWorld(seed uint64) *World { return &World{rand: rand.New(rand.NewPCG(seed, 0x776f726c64))} }

// weights of Australia, Europe, East Asia, West Asia, North America's east and west,
// South Africa, South America, and the latencies between them in milliseconds.
var (
	weights = [...]int{290, 5599, 1059, 161, 2894, 1240, 47, 36}
	delays  = [...][8]int{
		{2, 165, 110, 180, 150, 110, 220, 190},
		{165, 2, 125, 60, 70, 110, 95, 140},
		{110, 125, 4, 110, 140, 100, 175, 175},
		{180, 60, 110, 5, 110, 150, 110, 145},
		{150, 70, 140, 110, 2, 60, 130, 100},
		{110, 110, 100, 150, 60, 2, 160, 100},
		{220, 95, 175, 110, 130, 160, 7, 190},
		{190, 140, 175, 145, 100, 100, 190, 7},
	}
)

// Place gives the next node a place, and returns its bandwidth in bit/s.
func (w *World) Place() float64 {
	total := 0
	for _, x := range weights {
		total += x
	}
	at := w.rand.IntN(total)
	for i, x := range weights {
		if at -= x; at < 0 {
			w.regions = append(w.regions, i)
			break
		}
	}
	if w.rand.IntN(5) == 0 {
		return 1024e6
	}
	return 50e6
}

// Latency is that of Config.
func (w *World) Latency(a, b *Node) time.Duration { return w.Between(a.Index, b.Index) }

// Between is the latency between the nodes with two indices.
func (w *World) Between(i, j int) time.Duration {
	return time.Duration(delays[w.regions[i]][w.regions[j]]) * time.Millisecond
}

// Mix connects each of the nodes to others of them at random until it has degree
// neighbours among them.
func (s *Sim) Mix(nodes []*Node, degree int) {
	degree = min(degree, len(nodes)-1)
	among := make(map[*Node]bool)
	for _, n := range nodes {
		among[n] = true
	}
	for _, n := range nodes {
		have := 0
		for _, c := range n.conns {
			if among[c.to] {
				have++
			}
		}
		for tries := 0; have < degree && tries < 100*degree; tries++ {
			if x := nodes[s.Rand.IntN(len(nodes))]; x != n && !n.Connected(x) {
				s.Connect(n, x)
				have++
			}
		}
	}
}

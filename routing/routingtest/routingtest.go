// Package routingtest tests routers: every one finds what hosts have that are no
// neighbours of each other, on a simulated network in virtual time.
//
//	func TestConformance(t *testing.T) {
//		routingtest.Test(t, func(t testing.TB, h *plexus.Host, v routing.Validator) routing.Router {
//			…
//		})
//	}
package routingtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/routing"
	"github.com/plexus-p2p/plexus/simnet"
)

// Prefix is what the keys begin with that [Numbers] knows.
const Prefix = "/numbers/"

// Numbers is a Validator for tests. A value is a number, of which the greater one is
// better, and the Unix time at which it ends: "7 1700000000".
type Numbers struct{}

// Value is a value of Numbers.
func Value(n int, until time.Time) []byte { return fmt.Appendf(nil, "%d %d", n, until.Unix()) }

func parse(v []byte) (n int, until int64, err error) {
	a, b, _ := strings.Cut(string(v), " ")
	if n, err = strconv.Atoi(a); err == nil {
		until, err = strconv.ParseInt(b, 10, 64)
	}
	return n, until, err
}

// Validate implements routing.Validator.
func (Numbers) Validate(key string, v []byte, now time.Time) (until time.Time, err error) {
	if !strings.HasPrefix(key, Prefix) {
		return until, routing.ErrNamespace
	}
	_, seconds, err := parse(v)
	if err != nil {
		return until, fmt.Errorf("%w: %w", routing.ErrInvalid, err)
	}
	if until = time.Unix(seconds, 0); now.After(until) {
		return until, routing.ErrExpired
	}
	return until, nil
}

// Compare implements routing.Validator.
func (Numbers) Compare(_ string, a, b []byte) int {
	x, _, _ := parse(a)
	y, _, _ := parse(b)
	if x == y {
		return bytes.Compare(a, b)
	}
	return x - y
}

// A Net is routers on hosts that are connected in a line: each has its neighbours only.
type Net struct {
	Hosts   []*plexus.Host
	Routers []routing.Router
	Sim     *simnet.Network
}

// Start makes a Net of n hosts, in the bubble of the test that it is called in.
func Start(t testing.TB, n int, router func(testing.TB, *plexus.Host, routing.Validator) routing.Router) *Net {
	t.Helper()
	net := &Net{Sim: simnet.New(simnet.Config{Path: simnet.Link{Latency: 10 * time.Millisecond}})}
	t.Cleanup(net.Sim.Close)
	for i := range n {
		h := plexustest.SimHost(t, net.Sim.Host(fmt.Sprintf("10.0.%d.1", i)))
		net.Hosts = append(net.Hosts, h)
		net.Routers = append(net.Routers, router(t, h, Numbers{}))
		if i > 0 {
			net.Connect(t, i, i-1)
		}
	}
	time.Sleep(5 * time.Second)
	return net
}

// Connect connects two hosts.
func (n *Net) Connect(t testing.TB, i, j int) {
	t.Helper()
	if _, err := n.Hosts[i].Dial(t.Context(), n.Hosts[j].Info()); err != nil {
		t.Fatal(err)
	}
}

// Sum is the hash of a text.
func Sum(text string) multihash.Multihash {
	mh, err := multihash.Sum([]byte(text), multihash.SHA2_256, -1)
	if err != nil {
		panic(err) // it has that hash
	}
	return mh
}

// Test tests a router. The hosts have Noise, yamux and TCP, and serve nothing.
func Test(t *testing.T, router func(testing.TB, *plexus.Host, routing.Validator) routing.Router) {
	run := func(name string, hosts int, f func(t *testing.T, n *Net)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, Start(t, hosts, router)) })
		})
	}
	run("providers", 5, testProviders)
	run("many keys", 3, testManyKeys)
	run("withdraw", 3, testWithdraw)
	run("peers", 5, testPeers)
	run("values", 5, testValues)
	run("newer values", 4, testNewer)
	run("late", 3, func(t *testing.T, n *Net) { testLate(t, n, router) })
	run("invalid values", 3, testInvalid)
	run("expired values", 3, testExpired)
	run("context", 2, testContext)
}

// found collects what FindProviders yields.
func (n *Net) found(t *testing.T, i int, key multihash.Multihash) map[peer.ID]bool {
	t.Helper()
	got := make(map[peer.ID]bool)
	for p, err := range n.Routers[i].FindProviders(t.Context(), key) {
		if err != nil {
			t.Fatalf("host %d: %v", i, err)
		}
		if got[p.ID] {
			t.Errorf("host %d found %s twice", i, p.ID)
		}
		if p.ID == n.Hosts[i].ID() {
			t.Errorf("host %d found itself", i)
		}
		got[p.ID] = true
		if _, err := n.Hosts[i].Dial(t.Context(), p); err != nil {
			t.Errorf("host %d found %v, which leads nowhere: %v", i, p, err)
		}
	}
	return got
}

func testProviders(t *testing.T, n *Net) {
	key := Sum("what")
	if got := n.found(t, 4, key); len(got) != 0 {
		t.Errorf("before anybody provides: %v", got)
	}
	for _, i := range []int{0, 2} {
		if err := n.Routers[i].Provide(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n.Hosts {
		got := n.found(t, i, key)
		for _, j := range []int{0, 2} {
			if got[n.Hosts[j].ID()] != (i != j) {
				t.Errorf("host %d does not find %d: %v", i, j, got)
			}
		}
	}
	if got := n.found(t, 4, Sum("something else")); len(got) != 0 {
		t.Errorf("something else: %v", got)
	}
	for p, err := range n.Routers[1].FindProviders(t.Context(), multihash.Multihash("rubbish")) {
		if err == nil {
			t.Errorf("a key that is none: %v", p)
		}
	}
	if n.Routers[1].Provide(t.Context(), multihash.Multihash("rubbish")) == nil {
		t.Error("a key that is none is provided")
	}
}

// Many keys are provided, and looked for at the same time.
func testManyKeys(t *testing.T, n *Net) {
	const keys = 500
	for i := range keys {
		if err := n.Routers[0].Provide(t.Context(), Sum(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Minute)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			if got := n.found(t, 2, Sum(fmt.Sprint(i))); !got[n.Hosts[0].ID()] {
				t.Errorf("key %d is not found", i)
			}
		})
	}
	wg.Wait()
}

func testWithdraw(t *testing.T, n *Net) {
	key := Sum("what")
	for range 2 { // which is as good as once
		if err := n.Routers[0].Provide(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.found(t, 2, key); !got[n.Hosts[0].ID()] {
		t.Fatalf("got %v", got)
	}
	if err := n.Routers[0].Withdraw(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	if len(n.found(t, 2, key)) != 0 {
		time.Sleep(48 * time.Hour) // "Others may believe it for some time."
		if got := n.found(t, 2, key); len(got) != 0 {
			t.Errorf("withdrawn: %v", got)
		}
	}
	if err := n.Routers[0].Withdraw(t.Context(), Sum("nothing")); err != nil {
		t.Error(err)
	}
	if err := n.Routers[0].Provide(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if got := n.found(t, 2, key); !got[n.Hosts[0].ID()] {
		t.Errorf("provided again: %v", got)
	}
}

func testPeers(t *testing.T, n *Net) {
	for i := range n.Hosts {
		for j, h := range n.Hosts {
			p, err := n.Routers[i].FindPeer(t.Context(), h.ID())
			if err != nil || p.ID != h.ID() || len(p.Addrs) == 0 {
				t.Fatalf("host %d does not find %d: %v, %v", i, j, p, err)
			}
			if i != j {
				if _, err := n.Hosts[i].Dial(t.Context(), p); err != nil {
					t.Errorf("host %d found %v, which leads nowhere: %v", i, p, err)
				}
			}
		}
	}
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := n.Routers[0].FindPeer(t.Context(), key.ID()); !errors.Is(err, routing.ErrNotFound) {
		t.Errorf("a peer that is not there: %v, %v", p, err)
	}
	if p, err := n.Routers[0].FindPeer(t.Context(), "rubbish"); err == nil {
		t.Errorf("an ID that is none: %v", p)
	}
}

func testValues(t *testing.T, n *Net) {
	until := time.Now().Add(time.Hour)
	for _, key := range []string{Prefix + "a", Prefix + "\x00\xff", Prefix} {
		for i := range n.Hosts {
			if v, err := routing.Get(t.Context(), n.Routers[i], key); !errors.Is(err, routing.ErrNotFound) {
				t.Errorf("host %d, before there is one: %q, %v", i, v, err)
			}
		}
		want := Value(1, until)
		if err := n.Routers[0].Put(t.Context(), key, want); err != nil {
			t.Fatal(err)
		}
		for i := range n.Hosts {
			if v, err := routing.Get(t.Context(), n.Routers[i], key); err != nil || !bytes.Equal(v, want) {
				t.Errorf("host %d: %q, %v", i, v, err)
			}
		}
	}
}

// Of several values all find the best, whoever has it.
func testNewer(t *testing.T, n *Net) {
	key, until := Prefix+"a", time.Now().Add(time.Hour)
	for i, v := range []int{3, 5, 4} {
		err := n.Routers[i].Put(t.Context(), key, Value(v, until))
		if err != nil && !errors.Is(err, routing.ErrOlder) {
			t.Fatal(err)
		}
		if i == 0 && err != nil {
			t.Fatal(err)
		}
	}
	check := func(want int) {
		t.Helper()
		time.Sleep(time.Minute)
		for i, r := range n.Routers {
			last := -1
			for v, err := range r.Search(t.Context(), key) {
				if err != nil {
					t.Fatalf("host %d: %v", i, err)
				}
				got, _, _ := parse(v)
				if got <= last {
					t.Errorf("host %d: %d after %d", i, got, last)
				}
				last = got
			}
			if last != want {
				t.Errorf("host %d: %d, want %d", i, last, want)
			}
		}
	}
	check(5)
	if err := n.Routers[3].Put(t.Context(), key, Value(9, until)); err != nil {
		t.Fatal(err)
	}
	check(9)
	if err := n.Routers[0].Put(t.Context(), key, Value(8, until)); !errors.Is(err, routing.ErrOlder) {
		t.Errorf("an older value: %v", err)
	}
	if err := n.Routers[0].Put(t.Context(), key, Value(9, until)); err != nil {
		t.Errorf("the same value: %v", err)
	}
}

// A host that comes later finds what was there before, and what comes then.
func testLate(t *testing.T, n *Net, router func(testing.TB, *plexus.Host, routing.Validator) routing.Router) {
	key, sum, until := Prefix+"a", Sum("what"), time.Now().Add(100*time.Hour)
	if err := n.Routers[0].Put(t.Context(), key, Value(1, until)); err != nil {
		t.Fatal(err)
	}
	if err := n.Routers[0].Provide(t.Context(), sum); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Hour)
	h := plexustest.SimHost(t, n.Sim.Host("10.0.99.1"))
	n.Hosts, n.Routers = append(n.Hosts, h), append(n.Routers, router(t, h, Numbers{}))
	n.Connect(t, 3, 2)
	time.Sleep(5 * time.Second)
	if v, err := routing.Get(t.Context(), n.Routers[3], key); err != nil || !bytes.Equal(v, Value(1, until)) {
		t.Errorf("the value: %q, %v", v, err)
	}
	if got := n.found(t, 3, sum); !got[n.Hosts[0].ID()] {
		t.Errorf("the provider: %v", got)
	}
	if p, err := n.Routers[3].FindPeer(t.Context(), n.Hosts[0].ID()); err != nil || len(p.Addrs) == 0 {
		t.Errorf("the first host: %v, %v", p, err)
	}
	if p, err := n.Routers[0].FindPeer(t.Context(), h.ID()); err != nil || len(p.Addrs) == 0 {
		t.Errorf("the late host: %v, %v", p, err)
	}
}

func testInvalid(t *testing.T, n *Net) {
	r := n.Routers[0]
	if err := r.Put(t.Context(), Prefix+"a", []byte("no number")); !errors.Is(err, routing.ErrInvalid) {
		t.Errorf("an invalid value: %v", err)
	}
	if err := r.Put(t.Context(), "/other/a", Value(1, time.Now())); !errors.Is(err, routing.ErrNamespace) {
		t.Errorf("a key that nobody knows: %v", err)
	}
	for v, err := range r.Search(t.Context(), "/other/a") {
		if !errors.Is(err, routing.ErrNamespace) {
			t.Errorf("a key that nobody knows: %q, %v", v, err)
		}
	}
	if err := r.Put(t.Context(), Prefix+"a", Value(1, time.Now().Add(-time.Minute))); !errors.Is(err, routing.ErrExpired) {
		t.Errorf("an expired value: %v", err)
	}
	if v, err := routing.Get(t.Context(), n.Routers[2], Prefix+"a"); !errors.Is(err, routing.ErrNotFound) {
		t.Errorf("%q, %v", v, err)
	}
}

// A value that has ended is found no more, and another may take its place, be it worse.
func testExpired(t *testing.T, n *Net) {
	key := Prefix + "a"
	if err := n.Routers[0].Put(t.Context(), key, Value(9, time.Now().Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	if _, err := routing.Get(t.Context(), n.Routers[2], key); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Hour)
	for i, r := range n.Routers {
		if v, err := routing.Get(t.Context(), r, key); !errors.Is(err, routing.ErrNotFound) {
			t.Errorf("host %d: %q, %v", i, v, err)
		}
	}
	want := Value(2, time.Now().Add(time.Hour))
	if err := n.Routers[2].Put(t.Context(), key, want); err != nil {
		t.Fatal(err)
	}
	if v, err := routing.Get(t.Context(), n.Routers[0], key); err != nil || !bytes.Equal(v, want) {
		t.Errorf("%q, %v", v, err)
	}
}

// The end of ctx ends everything, with its cause; leaving a loop ends it too.
func testContext(t *testing.T, n *Net) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Second, func() { cancel(why) })
	r, begin := n.Routers[0], time.Now()
	for p, err := range r.FindProviders(ctx, Sum("nothing")) {
		if err != why {
			t.Errorf("providers: %v, %v", p, err)
		}
	}
	for v, err := range r.Search(ctx, Prefix+"a") {
		if err != why {
			t.Errorf("values: %q, %v", v, err)
		}
	}
	if _, err := r.FindPeer(ctx, n.Hosts[1].ID()); err != why {
		t.Errorf("a peer: %v", err)
	}
	if err := r.Provide(ctx, Sum("x")); err != why {
		t.Errorf("provide: %v", err)
	}
	if err := r.Put(ctx, Prefix+"a", Value(1, time.Now().Add(time.Hour))); err != why {
		t.Errorf("put: %v", err)
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
	if err := r.Provide(t.Context(), Sum("what")); err != nil {
		t.Fatal(err)
	}
	for range n.Routers[1].FindProviders(t.Context(), Sum("what")) {
		break
	}
	if err := r.Put(t.Context(), Prefix+"b", Value(1, time.Now().Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	for range n.Routers[1].Search(t.Context(), Prefix+"b") {
		break
	}
}

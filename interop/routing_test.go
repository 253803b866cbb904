package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/path"
	"github.com/libp2p/go-libp2p"
	gopubsub "github.com/libp2p/go-libp2p-pubsub"
	gocrypto "github.com/libp2p/go-libp2p/core/crypto"
	gopeer "github.com/libp2p/go-libp2p/core/peer"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/node"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/floodsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/routing"
	"github.com/plexus-p2p/plexus/routing/gossip"
	ouripns "github.com/plexus-p2p/plexus/routing/ipns"
)

// router is a plexus host that routes by pubsub.
func router(t *testing.T, r pubsub.Router, cfg gossip.Config) (*plexus.Host, *gossip.Router) {
	t.Helper()
	h, err := node.New(node.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	ps, err := pubsub.New(h, r, pubsub.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Validator = routing.Namespaces{ouripns.Prefix: ouripns.Validator{}}
	g, err := gossip.New(h, ps, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h, g
}

// TestIPNS: boxo takes our records, and we take its, with the legacy fields and without.
func TestIPNS(t *testing.T) {
	until := time.Now().Add(time.Hour)
	for _, typ := range []int{gocrypto.Ed25519, gocrypto.RSA, gocrypto.Secp256k1, gocrypto.ECDSA} {
		theirs, _, err := gocrypto.GenerateKeyPair(typ, 2048)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := gocrypto.MarshalPrivateKey(theirs)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := peer.ParsePrivKey(raw)
		if err != nil {
			t.Fatal(err)
		}
		id, err := gopeer.IDFromPrivateKey(theirs)
		if err != nil {
			t.Fatal(err)
		}
		key := string(ipns.NameFromPeer(id).RoutingKey())
		if got := ouripns.Key(ours.ID()); got != key {
			t.Errorf("%v: key %q, boxo has %q", ours.Type(), got, key)
		}
		want := ouripns.Record{Value: "/ipfs/bafkqaddwgevxmmraojswg33smq", Sequence: 7, Until: until, TTL: time.Minute}
		sealed, err := ouripns.Seal(ours, want)
		if err != nil {
			t.Fatal(err)
		}
		if err := (ipns.Validator{}).Validate(key, sealed); err != nil {
			t.Errorf("%v: boxo refuses our record: %v", ours.Type(), err)
		}
		rec, err := ipns.UnmarshalRecord(sealed)
		if err != nil {
			t.Fatal(err)
		}
		seq, _ := rec.Sequence()
		value, _ := rec.Value()
		ttl, _ := rec.TTL()
		if eol, _ := rec.Validity(); seq != 7 || value == nil || value.String() != want.Value || ttl != want.TTL || !eol.Equal(until) {
			t.Errorf("%v: boxo reads %d, %v, %v, %v", ours.Type(), seq, value, ttl, eol)
		}
		for _, legacy := range []bool{false, true} {
			b := boxo(t, theirs, want.Value, 8, until, legacy)
			r, err := ouripns.Open(ours.ID(), b, time.Now())
			if err != nil || r.Value != want.Value || r.Sequence != 8 || !r.Until.Equal(until) || r.TTL != time.Minute {
				t.Errorf("%v, legacy %v: we read %+v, %v", ours.Type(), legacy, r, err)
			}
			best, err := ipns.Validator{}.Select(key, [][]byte{sealed, b})
			if err != nil || best != 1 || (ouripns.Validator{}).Compare(key, b, sealed) <= 0 {
				t.Errorf("%v, legacy %v: the newer is not the better: %d, %v", ours.Type(), legacy, best, err)
			}
		}
	}
}

// boxo makes a record.
func boxo(t *testing.T, key gocrypto.PrivKey, value string, seq uint64, until time.Time, legacy bool) []byte {
	t.Helper()
	p, err := path.NewPath(value)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := ipns.NewRecord(key, p, seq, until, time.Minute, ipns.WithV1Compatibility(legacy))
	if err != nil {
		t.Fatal(err)
	}
	b, err := ipns.MarshalRecord(rec)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestIPNSOverPubSub: a record that go-libp2p-pubsub publishes is found, and it receives
// ours, in the topic that Kubo uses for the key.
func TestIPNSOverPubSub(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ps, err := gopubsub.NewGossipSub(ctx, g)
	if err != nil {
		t.Fatal(err)
	}
	author, _, err := gocrypto.GenerateKeyPair(gocrypto.Ed25519, 0)
	if err != nil {
		t.Fatal(err)
	}
	id, err := gopeer.IDFromPrivateKey(author)
	if err != nil {
		t.Fatal(err)
	}
	key := string(ipns.NameFromPeer(id).RoutingKey())
	topic := "/record/" + base64.RawURLEncoding.EncodeToString([]byte(key))
	// As go-libp2p-pubsub-router does: who sends what is invalid, is rejected.
	err = ps.RegisterTopicValidator(topic, func(_ context.Context, _ gopeer.ID, m *gopubsub.Message) gopubsub.ValidationResult {
		if err := (ipns.Validator{}).Validate(key, m.Data); err != nil {
			t.Errorf("boxo refuses what came: %v", err)
			return gopubsub.ValidationReject
		}
		return gopubsub.ValidationAccept
	})
	if err != nil {
		t.Fatal(err)
	}
	there, err := ps.Join(topic)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := there.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	h, r := router(t, gossipsub.Must(gossipsub.Default()), gossip.Config{Patience: 20 * time.Second})
	gid, err := peer.Parse(g.ID().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Dial(ctx, peer.AddrInfo{ID: gid, Addrs: g.Addrs()}); err != nil {
		t.Fatal(err)
	}

	// Theirs to us: the search waits in the topic. go-libp2p-pubsub publishes to its mesh
	// alone, in which we are not from the beginning.
	first := boxo(t, author, "/ipfs/bafkqaaa", 1, time.Now().Add(time.Hour), true)
	found := make(chan struct{})
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				there.Publish(ctx, first)
			case <-found:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	for v, err := range r.Search(ctx, key) {
		if err != nil || !bytes.Equal(v, first) {
			t.Fatalf("found %q, %v", v, err)
		}
		break
	}
	close(found)

	// Ours to them.
	second := boxo(t, author, "/ipfs/bafkqaddwgevxmmraojswg33smq", 2, time.Now().Add(time.Hour), false)
	if err := r.Put(ctx, key, second); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := sub.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(m.Data, second) {
			break
		}
	}
}

// TestPeerDiscovery: js-libp2p's pubsub-peer-discovery finds a host that is no neighbour
// of it, and is found by it: both ways through one that is between.
func TestPeerDiscovery(t *testing.T) {
	js, err := load(t, "js")
	if err != nil {
		skip(t, "%v", err)
	}
	script := filepath.Join(filepath.Dir(js.argv[1]), "discovery.mjs")
	if err := copyFile("peers/js/discovery.mjs", script); err != nil {
		t.Fatal(err)
	}
	for name, routers := range map[string]func() pubsub.Router{
		"gossipsub": func() pubsub.Router { return gossipsub.Must(gossipsub.Default()) },
		"floodsub":  func() pubsub.Router { return floodsub.New() }, // which gossipsub speaks too
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			far, far2 := router(t, routers(), gossip.Config{})
			middle, _ := router(t, routers(), gossip.Config{})
			if _, err := far.Dial(ctx, middle.Info()); err != nil {
				t.Fatal(err)
			}
			p := &program{name: "js", argv: []string{js.argv[0], script}}
			c := newProcess(ctx, p, middle.Info().Full()[0].String(), far.ID().String())
			stdin, stdout, err := c.start()
			if err != nil {
				t.Fatal(err)
			}
			defer c.cmd.Wait()
			defer stdin.Close()
			lines := bufio.NewScanner(stdout)
			var me struct{ ID, Found string }
			for _, what := range []string{"who it is", "that it found us"} {
				if !lines.Scan() {
					t.Fatalf("js does not say %s:\n%s", what, c.stderr.tail())
				}
				if err := json.Unmarshal(lines.Bytes(), &me); err != nil {
					t.Fatalf("js: %v: %s", err, lines.Bytes())
				}
			}
			if me.Found == "" {
				t.Errorf("js found no address")
			}
			id, err := peer.Parse(me.ID)
			if err != nil {
				t.Fatal(err)
			}
			for {
				i, err := far2.FindPeer(ctx, id)
				if ctx.Err() != nil {
					t.Fatal("js is not found")
				}
				if err == nil {
					if _, err := far.Dial(ctx, i); err != nil {
						t.Errorf("js is found at %v: %v", i, err)
					}
					fmt.Fprintln(stdin, "bye")
					return
				}
			}
		})
	}
}

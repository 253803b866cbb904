package gossipsub_test

import (
	"flag"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/pubsub/pubsubtest"
)

var update = flag.Bool("update", false, "write what the router does into the scripts")

// TestScripts runs the rules of the specs, each under its sentence.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			pubsubtest.Script(t, f, *update, scripted)
		})
	}
}

// scripted makes a router as a script says: Params, and with score=on ScoreParams,
// Thresholds and the TopicScoreParams of the topic "t" by their fields' names; px=on,
// gater=on, partial=on, direct=x,y, allow=PREFIX.
func scripted(set map[string]string, note func(string)) (pubsub.Router, error) {
	cfg := gossipsub.Default()
	into := []any{&cfg.Params}
	if set["score"] == "on" {
		topic := &gossipsub.TopicScoreParams{TopicWeight: 1}
		cfg.Score = &gossipsub.ScoreParams{
			Thresholds:        gossipsub.Thresholds{Gossip: -10, Publish: -20, Graylist: -30},
			BehaviourWeight:   -1,
			BehaviourDecay:    0.9,
			AppSpecificWeight: 1,
			Topics:            map[string]*gossipsub.TopicScoreParams{"t": topic},
		}
		into = append(into, cfg.Score, &cfg.Score.Thresholds, topic)
		if app := set["app"]; app != "" { // app=x:5,y:-3
			scores := make(map[peer.ID]float64)
			for _, kv := range strings.Split(app, ",") {
				k, v, _ := strings.Cut(kv, ":")
				scores[peer.ID(k)], _ = strconv.ParseFloat(v, 64)
			}
			cfg.Score.AppSpecific = func(id peer.ID) float64 { return scores[id] }
		}
		if p := set["allow"]; p != "" {
			cfg.Score.IPColocationAllow = []netip.Prefix{netip.MustParsePrefix(p)}
		}
	}
	if set["gater"] == "on" {
		cfg.Gater = new(gossipsub.GaterParams)
		into = append(into, cfg.Gater)
	}
	cfg.PX = set["px"] == "on"
	if set["partial"] == "on" {
		cfg.Partial = &gossipsub.Partial{
			Incoming: func(from peer.ID, m *pubsub.Partial) {
				note(fmt.Sprintf("incoming %s %s %s %s %s", string(from), m.Topic, m.Group, m.Message, m.Metadata))
			},
			Gossip: func(topic string, group []byte, peers []peer.ID) {
				note(fmt.Sprintf("gossip %s %s %v", topic, group, []peer.ID(peers)))
			},
		}
	}
	if d := set["direct"]; d != "" {
		for _, name := range strings.Split(d, ",") {
			cfg.Direct = append(cfg.Direct, peer.AddrInfo{ID: peer.ID(name)})
		}
	}
	for name, v := range set {
		switch name {
		case "score", "app", "allow", "gater", "px", "partial", "direct":
			continue
		}
		if !assign(into, name, v) {
			return nil, fmt.Errorf("no parameter %s", name)
		}
	}
	return gossipsub.New(cfg)
}

func assign(into []any, name, v string) bool {
	for _, x := range into {
		f := reflect.ValueOf(x).Elem().FieldByName(name)
		if !f.IsValid() {
			continue
		}
		switch f.Interface().(type) {
		case int:
			n, err := strconv.Atoi(v)
			f.SetInt(int64(n))
			return err == nil
		case float64:
			n, err := strconv.ParseFloat(v, 64)
			f.SetFloat(n)
			return err == nil
		case bool:
			f.SetBool(v == "true")
			return true
		case time.Duration:
			d, err := time.ParseDuration(v)
			f.SetInt(int64(d))
			return err == nil
		}
	}
	return false
}

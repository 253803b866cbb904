package main

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"testing/synctest"
)

// The demo tells the whole story, in its order.
func TestDemo(t *testing.T) {
	r := command(t, "demo").ok(t)
	rest := r.out
	for _, want := range []string{
		"X and Y", "listen", "dial", "connect", "security", "muxer", "stream", "message", "reply", "close", "first answer",
		"100 ms", "dial", "connect", "security", "reply", "close", "first answer", "round trips", "plexus up",
	} {
		i := strings.Index(rest, want)
		if i < 0 {
			t.Fatalf("%q does not follow in:\n%s", want, r.out)
		}
		rest = rest[i:]
	}
	if strings.Contains(r.out, "\x1b") {
		t.Error("colours without a terminal")
	}
}

// The round trips are measured. In virtual time, where computing takes none,
// they are whole or half ones, but for what TCP paces: 1 to connect, 1 for the handshake, in which the muxer
// is agreed on, and 1 for stream, message and reply together.
func TestDemoRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		e := &env{ctx: t.Context(), out: newPrinter(&out, true, false), stderr: &out}
		if err := simulated(e, demoRTT); err != nil {
			t.Fatal(err)
		}
		got := make(map[string][]float64)
		for line := range strings.Lines(out.String()) {
			var m struct {
				Event, Host, Stage string
				Trips              float64 `json:"round_trips"`
			}
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			if m.Event == "answer" {
				m.Stage = "answer"
			}
			got[m.Host+m.Stage] = append(got[m.Host+m.Stage], m.Trips)
		}
		for stage, want := range map[string]float64{
			"Xdial": 0, "Xconnect": 1, "Yaccept": 1.5, "Xsecurity": 2, "Xmuxer": 2, "Xstream": 2, "Xmessage": 2,
			"Ymessage": 2.5, "Xreply": 3, "Xidentify": 3, "answer": 3,
		} {
			if len(got[stage]) != 1 || math.Abs(got[stage][0]-want) > 0.05 {
				t.Errorf("%s after %v round trips, want %v", stage, got[stage], want)
			}
		}
	})
}

func TestTrips(t *testing.T) {
	for n, want := range map[trips]string{0: "0.0", 1.01: "1.0", 1.499: "1.5", 2.53: "2.5", 3.1: "3.0", 3.2: "3.2", 3.36: "3.4", 4.2: "4.2"} {
		if got := n.String(); got != want {
			t.Errorf("%v: got %s want %s", float64(n), got, want)
		}
	}
}

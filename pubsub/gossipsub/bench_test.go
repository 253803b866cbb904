package gossipsub_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus"
	"github.com/plexus-p2p/plexus/plexustest"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/transport/memory"
)

// swarm is hosts in this process, in real time, each subscribed to a topic.
type swarm struct {
	pubsubs []*pubsub.PubSub
	topics  []*pubsub.Topic
	got     atomic.Int64 // messages that subscriptions delivered
	lost    atomic.Int64
}

func newSwarm(b testing.TB, hosts int, cfg pubsub.Config) *swarm {
	s := new(swarm)
	var n memory.Network
	var hs []*plexus.Host
	for range hosts {
		h := plexustest.Host(b, &n)
		ps, err := pubsub.New(h, gossipsub.Must(gossipsub.Default()), cfg)
		if err != nil {
			b.Fatal(err)
		}
		t, err := ps.Join("topic", pubsub.TopicConfig{})
		if err != nil {
			b.Fatal(err)
		}
		sub := t.Subscribe()
		go func() {
			for _, err := range sub.All(context.Background()) {
				if le, ok := err.(*pubsub.LostError); ok {
					s.lost.Add(int64(le.Messages))
				} else if err == nil {
					s.got.Add(1)
				}
			}
		}()
		hs = append(hs, h)
		s.pubsubs = append(s.pubsubs, ps)
		s.topics = append(s.topics, t)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range hosts {
		for _, j := range rnd.Perm(hosts)[:min(6, hosts-1)] {
			if i == j {
				continue
			}
			if _, err := hs[i].Dial(b.Context(), hs[j].Info()); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, t := range s.topics {
		if err := t.Wait(b.Context(), min(hosts-1, 4)); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		for _, ps := range s.pubsubs {
			ps.Close()
		}
	})
	return s
}

// cpu is the time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// await waits until n messages have come, or none has for a while.
func (s *swarm) await(n int64) {
	for last, still := int64(-1), 0; still < 50; {
		got := s.got.Load()
		if got >= n {
			return
		}
		if got == last {
			still++
		} else {
			last, still = got, 0
		}
		<-time.After(100 * time.Millisecond)
	}
}

// BenchmarkDelivery publishes messages of 1 KiB flat out from all hosts: what one
// delivery costs, signatures included, and how many are lost.
func BenchmarkDelivery(b *testing.B) {
	for _, hosts := range []int{20, 50} {
		for _, policy := range []pubsub.Policy{pubsub.StrictSign, pubsub.StrictNoSign} {
			name := map[pubsub.Policy]string{pubsub.StrictSign: "signed", pubsub.StrictNoSign: "unsigned"}[policy]
			b.Run(fmt.Sprintf("%d hosts/%s", hosts, name), func(b *testing.B) {
				s := newSwarm(b, hosts, pubsub.Config{Policy: policy})
				<-time.After(2 * time.Second) // meshes need some heartbeats
				var next, refused, published atomic.Int64
				var wg sync.WaitGroup
				begin, used := time.Now(), cpu()
				b.ResetTimer()
				for i, t := range s.topics {
					wg.Go(func() {
						for next.Add(1) <= int64(b.N) {
							data := make([]byte, 1024)
							binary.BigEndian.PutUint64(data, uint64(i)<<40|uint64(next.Load()))
							binary.BigEndian.PutUint64(data[8:], rand.Uint64())
							if _, err := t.Publish(context.Background(), data); err != nil {
								refused.Add(1)
							} else {
								published.Add(1)
							}
						}
					})
				}
				wg.Wait()
				want := published.Load() * int64(hosts)
				s.await(want)
				b.StopTimer()
				took, got := time.Since(begin), s.got.Load()
				b.ReportMetric(float64((cpu()-used).Microseconds())/float64(got), "cpu-µs/delivery")
				b.ReportMetric(float64(got)/took.Seconds(), "deliveries/s")
				b.ReportMetric(100*float64(want-got)/float64(want), "%lost")
				b.ReportMetric(float64(refused.Load()), "refused")
				var dup, rec, cancelled, sent uint64
				drops := map[pubsub.Reason]uint64{}
				for _, ps := range s.pubsubs {
					st := ps.Stats()
					dup, rec, cancelled, sent = dup+st.Duplicates, rec+st.Received, cancelled+st.Cancelled, sent+st.Sent
					for r, n := range st.Dropped {
						drops[r] += n
					}
				}
				b.ReportMetric(float64(rec)/float64(got), "copies")
				b.Logf("sent %d, received %d, duplicates %d, cancelled %d, dropped %v, lost by subscribers %d", sent, rec, dup, cancelled, drops, s.lost.Load())
			})
		}
	}
}

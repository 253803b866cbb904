package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/plexus-p2p/plexus/bench/internal/child"
)

// order is what a worker is told, and report what it answers, a JSON value a line.
type order struct {
	Do    string
	N     int        // host: members; wait: neighbours of each
	Dials [][]string // dial: addresses, for each member
	Rate  float64    // publish: messages a second of each member; 0: as many as it can
	Time  time.Duration
	Size  int
}

type report struct {
	Addrs []string `json:",omitempty"`

	Published, Failed float64 // messages; those that publish has told somebody will not get
	Delivered         float64 // so far
	Told              float64 // drops that were counted
	Last              int64   // when the last delivery was, in Unix nanoseconds
	Late              []int32 // latencies in microseconds, where a rate was set

	CPU          float64 // seconds that this process has used so far
	Heap, Stacks float64 // bytes, after a collection

	Err string `json:",omitempty"`
}

// A worker is members of one stack in one process.
type worker struct {
	stack   string
	members []member

	delivered, last atomic.Int64
	timed           atomic.Bool

	mu   sync.Mutex
	late []int32
}

// work carries out orders until the standard input ends.
func work(stack, prof string) error {
	if stacks[stack] == nil {
		return fmt.Errorf("no stack %q", stack)
	}
	w := &worker{stack: stack}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := in.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if prof != "" && o.Do == "publish" {
			f, err := os.Create(filepath.Join(prof, fmt.Sprintf("%s-%d.pprof", stack, os.Getpid())))
			if err != nil {
				return err
			}
			pprof.StartCPUProfile(f)
		}
		r, err := w.do(context.Background(), o)
		if prof != "" && o.Do == "publish" {
			pprof.StopCPUProfile()
		}
		if prof != "" && o.Do == "weigh" {
			f, err := os.Create(filepath.Join(prof, fmt.Sprintf("%s-%d.heap.pprof", stack, os.Getpid())))
			if err != nil {
				return err
			}
			pprof.WriteHeapProfile(f)
			f.Close()
		}
		if err != nil {
			r.Err = err.Error()
		}
		var u syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		r.CPU = float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
		out.Encode(r)
	}
}

func (w *worker) do(ctx context.Context, o order) (r report, err error) {
	switch o.Do {
	case "host":
		for range o.N {
			m, err := stacks[w.stack]()
			if err != nil {
				return r, err
			}
			w.members = append(w.members, m)
			r.Addrs = append(r.Addrs, m.addr())
		}
	case "join":
		for _, m := range w.members {
			if err := m.join(ctx, w.got); err != nil {
				return r, err
			}
		}
	case "dial":
		for i, addrs := range o.Dials {
			for _, a := range addrs {
				ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
				err := w.members[i].dial(ctx, a)
				cancel()
				if err != nil {
					return r, err
				}
			}
		}
	case "wait":
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			few := 0
			for _, m := range w.members {
				if m.peers() < o.N {
					few++
				}
			}
			if few == 0 {
				break
			}
			if time.Now().After(end) {
				return r, fmt.Errorf("%d members have not found %d neighbours", few, o.N)
			}
		}
	case "publish":
		w.timed.Store(o.Rate > 0)
		var published, failed atomic.Int64
		var wg sync.WaitGroup
		for _, m := range w.members {
			wg.Go(func() {
				n, bad := publish(ctx, m, o)
				published.Add(n)
				failed.Add(bad)
			})
		}
		wg.Wait()
		r.Published, r.Failed = float64(published.Load()), float64(failed.Load())
	case "count":
		r.Delivered, r.Last = float64(w.delivered.Load()), w.last.Load()
		w.mu.Lock()
		r.Late = w.late
		w.mu.Unlock()
		for _, m := range w.members {
			r.Told += float64(m.told())
		}
	case "weigh":
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		r.Heap, r.Stacks = float64(m.HeapAlloc), float64(m.StackInuse)
	default:
		return r, errors.New("no such order")
	}
	return r, nil
}

// got is called for each message that somebody else has published. In its first 8 bytes
// is when.
func (w *worker) got(data []byte) {
	now := time.Now().UnixNano()
	w.delivered.Add(1)
	w.last.Store(now)
	if w.timed.Load() {
		us := (now - int64(binary.BigEndian.Uint64(data))) / 1000
		w.mu.Lock()
		w.late = append(w.late, int32(min(us, 1<<31-1)))
		w.mu.Unlock()
	}
}

// publish has one member publish.
func publish(ctx context.Context, m member, o order) (published, failed int64) {
	data := make([]byte, o.Size)
	rand.Read(data)
	begin := time.Now()
	for {
		if o.Rate > 0 {
			// Members do not beat in time.
			at := (float64(published) + float64(data[9])/256) / o.Rate
			time.Sleep(time.Until(begin.Add(time.Duration(at * float64(time.Second)))))
		}
		if time.Since(begin) >= o.Time {
			return published, failed
		}
		msg := append([]byte(nil), data...)
		binary.BigEndian.PutUint64(msg, uint64(time.Now().UnixNano()))
		if !m.publish(ctx, msg) {
			failed++
		}
		published++
	}
}

// A fleet is the processes of a network.
type fleet struct {
	stack    string
	children []*child.Process
	each     int // members of each
}

// newFleet makes a network of n members in so many processes, as many in each.
func newFleet(stack, prof string, n, processes int) (*fleet, error) {
	f := &fleet{stack: stack, each: n / processes}
	for range processes {
		c, err := child.Start("-worker", stack, "-profile", prof)
		if err != nil {
			f.stop()
			return nil, err
		}
		f.children = append(f.children, c)
	}
	return f, nil
}

func (f *fleet) stop() {
	for _, c := range f.children {
		c.End()
	}
	for _, c := range f.children {
		c.Wait()
	}
}

// ask gives every process an order, which each may make its own, and waits for all.
func (f *fleet) ask(o order, own func(i int, o *order)) ([]report, error) {
	reports := make([]report, len(f.children))
	errs := make([]error, len(f.children))
	var wg sync.WaitGroup
	for i, c := range f.children {
		o := o
		if own != nil {
			own(i, &o)
		}
		wg.Go(func() {
			errs[i] = c.Ask(o, &reports[i])
			if errs[i] == nil && reports[i].Err != "" {
				errs[i] = errors.New(reports[i].Err)
			}
			if errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %s: %w", f.stack, o.Do, errs[i])
			}
		})
	}
	wg.Wait()
	return reports, errors.Join(errs...)
}

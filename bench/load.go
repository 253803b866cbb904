package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// A load is something to do over and over on a stack, and what to count.
type load struct {
	name  string
	unit  string   // what an operation is
	among []string // the stacks that it runs on; the ratio is to the one called go-libp2p
	floor bool     // whether it makes sense on bare connections, too

	// run works for about d and returns how many operations that were.
	run func(ctx context.Context, s impl, addr string, d time.Duration) (ops float64, err error)
}

var loads = []load{
	{"bulk up, 1 stream", "MB", secured, true, bulk(protoSink, 1)},
	{"bulk up, 10 streams", "MB", secured, false, bulk(protoSink, 10)},
	{"bulk up, 100 streams", "MB", secured, false, bulk(protoSink, 100)},
	{"bulk down, 1 stream", "MB", secured, true, bulk(protoFlow, 1)},
	{"bulk down, 10 streams", "MB", secured, false, bulk(protoFlow, 10)},
	{"bulk down, 100 streams", "MB", secured, false, bulk(protoFlow, 100)},
	{"round trip of 32 B", "trip", secured, true, roundTrips},
	{"32 B writes on one stream", "write", secured, true, smallWrites},
	{"open, echo 1 B, close; one at a time", "stream", secured, false, streams(1)},
	{"open, echo 1 B, close; 64 at a time", "stream", secured, false, streams(64)},
	{"connect, echo 1 B; one at a time", "conn", secured, true, connects(1)},
	{"connect, echo 1 B; 16 at a time", "conn", secured, true, connects(16)},
	{"connect, echo 1 B, default nodes; one at a time", "conn", nodes, false, connects(1)},
	{"connect, echo 1 B, default nodes; 16 at a time", "conn", nodes, false, connects(16)},
}

var (
	secured = []string{"noise", "tls"}
	nodes   = []string{"node"}
)

// bulk moves as much as it can over n streams at once.
func bulk(proto string, n int) func(context.Context, impl, string, time.Duration) (float64, error) {
	return func(ctx context.Context, s impl, addr string, d time.Duration) (float64, error) {
		c, err := s.dial(ctx, addr)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		var total atomic.Int64
		var failed atomic.Pointer[error]
		var wg sync.WaitGroup
		end := time.Now().Add(d)
		for range n {
			wg.Go(func() {
				moved, err := flow(ctx, c, proto, end)
				total.Add(moved)
				if err != nil {
					failed.Store(&err)
				}
			})
		}
		wg.Wait()
		if err := failed.Load(); err != nil {
			return 0, *err
		}
		return float64(total.Load()) / 1e6, nil
	}
}

// flow moves bytes on one stream until end.
func flow(ctx context.Context, c conn, proto string, end time.Time) (int64, error) {
	st, err := c.open(ctx, proto)
	if err != nil {
		return 0, err
	}
	defer st.Close()
	buf := make([]byte, bufSize)
	var moved int64
	if proto == protoFlow {
		binary.BigEndian.PutUint64(buf, 1<<62)
		if _, err := st.Write(buf[:8]); err != nil {
			return 0, err
		}
		for time.Now().Before(end) {
			n, err := st.Read(buf)
			moved += int64(n)
			if err != nil {
				return moved, err
			}
		}
		if r, ok := st.(interface{ Reset() error }); ok {
			r.Reset()
		}
		return moved, nil
	}
	for time.Now().Before(end) {
		n, err := st.Write(buf)
		moved += int64(n)
		if err != nil {
			return moved, err
		}
	}
	if err := st.CloseWrite(); err != nil {
		return moved, err
	}
	_, err = io.ReadFull(st, buf[:1]) // everything has arrived
	return moved, err
}

// roundTrips echoes 32 bytes on a stream that stays open.
func roundTrips(ctx context.Context, s impl, addr string, d time.Duration) (float64, error) {
	c, err := s.dial(ctx, addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	st, err := c.open(ctx, protoEcho)
	if err != nil {
		return 0, err
	}
	defer st.Close()
	return until(d, func() error { return echo(st, 32) })
}

// smallWrites writes 32 bytes at a time.
func smallWrites(ctx context.Context, s impl, addr string, d time.Duration) (float64, error) {
	c, err := s.dial(ctx, addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	st, err := c.open(ctx, protoSink)
	if err != nil {
		return 0, err
	}
	defer st.Close()
	var b [32]byte
	n, err := until(d, func() error { _, err := st.Write(b[:]); return err })
	if err != nil {
		return n, err
	}
	if err := st.CloseWrite(); err != nil {
		return n, err
	}
	_, err = io.ReadFull(st, b[:1])
	return n, err
}

// streams opens a stream, echoes a byte and closes it, n at a time.
func streams(n int) func(context.Context, impl, string, time.Duration) (float64, error) {
	return func(ctx context.Context, s impl, addr string, d time.Duration) (float64, error) {
		c, err := s.dial(ctx, addr)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		return parallel(n, d, func() error {
			st, err := c.open(ctx, protoEcho)
			if err != nil {
				return err
			}
			defer st.Close()
			return echo(st, 1)
		})
	}
}

// connects makes a fresh connection, echoes a byte and closes it, n at a time.
func connects(n int) func(context.Context, impl, string, time.Duration) (float64, error) {
	return func(ctx context.Context, s impl, addr string, d time.Duration) (float64, error) {
		return parallel(n, d, func() error {
			c, err := s.dial(ctx, addr)
			if err != nil {
				return err
			}
			defer c.Close()
			st, err := c.open(ctx, protoEcho)
			if err != nil {
				return err
			}
			defer st.Close()
			return echo(st, 1)
		})
	}
}

func echo(st stream, n int) error {
	var b [64]byte
	if _, err := st.Write(b[:n]); err != nil {
		return err
	}
	_, err := io.ReadFull(st, b[:n])
	return err
}

func until(d time.Duration, f func() error) (float64, error) {
	n := 0
	for end := time.Now().Add(d); time.Now().Before(end); n++ {
		if err := f(); err != nil {
			return float64(n), fmt.Errorf("after %d: %w", n, err)
		}
	}
	return float64(n), nil
}

func parallel(n int, d time.Duration, f func() error) (float64, error) {
	var total atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			k, err := until(d, f)
			total.Add(int64(k))
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(total.Load()), nil
}

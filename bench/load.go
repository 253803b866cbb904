package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
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
	{"bulk up, 1 stream", "MB", transports, true, bulk(protoSink, 1)},
	{"bulk up, 10 streams", "MB", all, false, bulk(protoSink, 10)},
	{"bulk up, 100 streams", "MB", all, false, bulk(protoSink, 100)},
	{"bulk down, 1 stream", "MB", transports, true, bulk(protoFlow, 1)},
	{"bulk down, 10 streams", "MB", all, false, bulk(protoFlow, 10)},
	{"bulk down, 100 streams", "MB", all, false, bulk(protoFlow, 100)},
	{"round trip of 32 B", "trip", all, true, roundTrips(1, 32)},
	{"round trips of 1 KiB on 10 streams", "trip", all, false, roundTrips(10, 1<<10)},
	{"round trips of 1 KiB on 100 streams", "trip", all, false, roundTrips(100, 1<<10)},
	{"32 B writes on one stream", "write", secured, true, smallWrites},
	{"open, echo 1 B, close; one at a time", "stream", all, false, streams(1)},
	{"open, echo 1 B, close; 64 at a time", "stream", transports, false, streams(64)},
	{"connect, echo 1 B; one at a time", "conn", transports, true, connects(1)},
	{"connect, echo 1 B; 16 at a time", "conn", transports, true, connects(16)},
	{"connect, echo 1 B, default nodes; one at a time", "conn", nodes, false, connects(1)},
	{"connect, echo 1 B, default nodes; 16 at a time", "conn", nodes, false, connects(16)},
}

var (
	secured    = []string{"noise", "tls"}
	all        = []string{"noise", "tls", "quic"}
	transports = []string{"noise", "tls", "quic", "ws", "webtransport", "webrtc"} // ws has Noise within
	nodes      = []string{"node"}
)

// bulk moves as much as it can over n streams at once.
func bulk(proto string, n int) func(context.Context, impl, string, time.Duration) (float64, error) {
	return func(ctx context.Context, s impl, addr string, d time.Duration) (float64, error) {
		c, err := s.dial(ctx, addr)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		end := time.Now().Add(d)
		return atOnce(n, n, func(int) (float64, error) {
			moved, err := flow(ctx, c, proto, end)
			return float64(moved) / 1e6, err
		})
	}
}

// flow moves bytes on one stream until end.
func flow(ctx context.Context, c conn, proto string, end time.Time) (moved int64, err error) {
	st, err := c.open(ctx, proto)
	if err != nil {
		return 0, err
	}
	defer st.Close()
	buf := make([]byte, bufSize)
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
	// Once at least: CloseWrite alone would not say which protocol it ends.
	for first := true; first || time.Now().Before(end); first = false {
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

// roundTrips echoes size bytes on each of n streams that stay open.
func roundTrips(n, size int) func(context.Context, impl, string, time.Duration) (float64, error) {
	return func(ctx context.Context, s impl, addr string, d time.Duration) (float64, error) {
		c, err := s.dial(ctx, addr)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		trips := make([]func() error, n)
		for i := range trips {
			st, err := c.open(ctx, protoEcho)
			if err != nil {
				return 0, err
			}
			defer st.Close()
			trips[i] = trip(st, size)
		}
		return atOnce(n, n, func(i int) (float64, error) { return until(d, trips[i]) })
	}
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
		return repeat(n, d, func() error {
			st, err := c.open(ctx, protoEcho)
			if err != nil {
				return err
			}
			defer st.Close()
			return trip(st, 1)()
		})
	}
}

// connects makes a fresh connection, echoes a byte and closes it, n at a time.
func connects(n int) func(context.Context, impl, string, time.Duration) (float64, error) {
	return func(ctx context.Context, s impl, addr string, d time.Duration) (float64, error) {
		return repeat(n, d, func() error {
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
			return trip(st, 1)()
		})
	}
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

// repeat lets n goroutines repeat f for d.
func repeat(n int, d time.Duration, f func() error) (float64, error) {
	return atOnce(n, n, func(int) (float64, error) { return until(d, f) })
}

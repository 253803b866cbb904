package contract

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mr-tron/base58"
)

// Checks are all checks, in the order in which a dialer should run them.
var Checks = []string{"connect", "request", "identify", "ping", "echo", "streams", "halfclose", "reset", "perf", "wrongpeer"}

const (
	checkTimeout = 30 * time.Second
	perfBytes    = 64 << 20
)

type dialer struct {
	stack Stack
	to    string
	offer Offer
	conn  Conn // since the connect check
}

// run runs one check. It comes back after checkTimeout even when the stack does not.
func (d *dialer) run(ctx context.Context, name string) Result {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	type outcome struct {
		detail string
		err    error
	}
	done := make(chan outcome, 1)
	start := time.Now()
	go func() { // ends with the check; if that hangs, with the process
		detail, err := d.check(ctx, name)
		done <- outcome{detail, err}
	}()
	var o outcome
	select {
	case o = <-done:
	case <-time.After(checkTimeout + time.Second):
		o.err = errors.New("hangs: its deadlines did not fire")
	}
	r := Result{Check: name, OK: o.err == nil, Detail: o.detail, MS: float64(time.Since(start).Microseconds()) / 1000}
	if o.err != nil {
		r.Detail = o.err.Error()
	}
	return r
}

func (d *dialer) check(ctx context.Context, name string) (string, error) {
	switch {
	case name == "connect":
		return d.connect(ctx)
	case name == "wrongpeer":
		return d.wrongPeer(ctx)
	case d.conn == nil:
		return "", errors.New("not run: no connection")
	case name == "identify":
		return d.identify(ctx)
	case name == "ping":
		rtts, err := d.conn.Ping(ctx, 5)
		return fmt.Sprint(rtts), err
	case name == "echo":
		return d.echo(ctx)
	case name == "streams":
		return d.streams(ctx)
	case name == "halfclose":
		data := bytes.Repeat([]byte("plexus "), 100_000/7+1)[:100_000]
		return "100 kB, SHA-256 back", d.halfClose(ctx, data)
	case name == "request":
		// The first thing on a new connection, so that the proposal of the
		// protocol, the request and our end of it can leave in one packet.
		for i := range 20 {
			if err := d.halfClose(ctx, []byte("plexus")); err != nil {
				return "", fmt.Errorf("request %d of 20: %w", i+1, err)
			}
		}
		return "20 short requests", nil
	case name == "reset":
		return d.reset(ctx)
	case name == "perf":
		return d.perf(ctx)
	}
	return "", fmt.Errorf("unknown check %q", name)
}

func (d *dialer) connect(ctx context.Context) (string, error) {
	c, err := d.stack.Dial(ctx, d.to, d.offer)
	if err != nil {
		return "", err
	}
	d.conn = c
	security, muxer := c.Used()
	if security != Wire[d.offer.Security] || muxer != Wire[d.offer.Muxer] {
		return "", fmt.Errorf("the connection uses %q and %q", security, muxer)
	}
	return d.offer.String(), nil
}

func (d *dialer) identify(ctx context.Context) (string, error) {
	id, err := d.conn.Identify(ctx)
	if err != nil {
		return "", err
	}
	_, peer, _ := strings.Cut(d.to, "/p2p/")
	switch {
	case id.Agent == "":
		return "", errors.New("no agent version")
	case !strings.HasPrefix(id.Observed, "/ip4/127.0.0.1/"):
		return "", fmt.Errorf("observed address %q", id.Observed)
	case id.Peer != peer:
		return "", fmt.Errorf("public key of %s", id.Peer)
	}
	have := strings.Join(id.Protocols, " ") + " "
	for _, p := range []string{Echo, Perf, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"} {
		if !strings.Contains(have, p+" ") {
			return "", fmt.Errorf("protocols lack %s: %s", p, have)
		}
	}
	return fmt.Sprintf("%s, %d protocols, sees us at %s", id.Agent, len(id.Protocols), id.Observed), nil
}

// open opens a stream whose deadline is that of ctx.
func (d *dialer) open(ctx context.Context, protocol string) (Stream, error) {
	s, err := d.conn.Open(ctx, protocol)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", protocol, err)
	}
	deadline, _ := ctx.Deadline()
	s.SetDeadline(deadline)
	return s, nil
}

// exchange writes data in pieces of the given sizes, cycling, closes the write
// side, and meanwhile reads to EOF.
func exchange(s Stream, data []byte, sizes ...int) ([]byte, error) {
	wrote := make(chan error, 1)
	go func() { // ends by the stream's deadline
		for i := 0; len(data) > 0; i++ {
			n := min(sizes[i%len(sizes)], len(data))
			if _, err := s.Write(data[:n]); err != nil {
				wrote <- fmt.Errorf("write: %w", err)
				return
			}
			data = data[n:]
		}
		wrote <- s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if err != nil {
		return nil, fmt.Errorf("read after %d bytes: %w", len(got), err)
	}
	return got, <-wrote
}

func (d *dialer) echo(ctx context.Context) (string, error) {
	s, err := d.open(ctx, Echo)
	if err != nil {
		return "", err
	}
	defer s.Close()
	data := make([]byte, 1<<20)
	mrand.NewChaCha8([32]byte{}).Read(data)
	got, err := exchange(s, data, 1, 7, 1000, 4093, 65537)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(got, data) {
		return "", fmt.Errorf("%d bytes came back and differ", len(got))
	}
	return "1 MiB", nil
}

func (d *dialer) streams(ctx context.Context) (string, error) {
	const n = 100
	var wg, open sync.WaitGroup
	open.Add(n) // no stream closes before all have had their echo
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			var s Stream
			s, errs[i] = d.open(ctx, Echo)
			if errs[i] == nil {
				defer s.Close()
				data := bytes.Repeat([]byte{byte(i)}, 1024)
				got := make([]byte, len(data))
				if _, errs[i] = s.Write(data); errs[i] == nil {
					_, errs[i] = io.ReadFull(s, got)
				}
				if errs[i] == nil && !bytes.Equal(got, data) {
					errs[i] = errors.New("echo differs")
				}
			}
			open.Done()
			open.Wait()
			if errs[i] == nil {
				_, errs[i] = exchange(s, nil)
			}
		})
	}
	wg.Wait()
	failed := 0
	for _, err := range errs {
		if err != nil {
			failed++
		}
	}
	if failed > 0 {
		return "", fmt.Errorf("%d of %d streams failed: %w", failed, n, errors.Join(errs...))
	}
	return fmt.Sprint(n, " at once"), nil
}

// halfClose sends data and the end of it, and reads its SHA-256.
func (d *dialer) halfClose(ctx context.Context, data []byte) error {
	s, err := d.open(ctx, HalfClose)
	if err != nil {
		return err
	}
	defer s.Close()
	got, err := exchange(s, data, 10_000)
	if err != nil {
		return err
	}
	if want := sha256.Sum256(data); !bytes.Equal(got, want[:]) {
		return fmt.Errorf("%d bytes came back, not the SHA-256", len(got))
	}
	return nil
}

func (d *dialer) reset(ctx context.Context) (string, error) {
	s, err := d.open(ctx, Reset)
	if err != nil {
		return "", err
	}
	defer s.Reset()
	if _, err := s.Write([]byte{1}); err != nil {
		return "", err
	}
	if n, err := s.Read(make([]byte, 1)); !d.stack.IsReset(err) {
		return "", fmt.Errorf("after the listener's reset, read says %d, %v", n, err)
	} else if err := d.resetOurs(ctx); err != nil {
		return "", fmt.Errorf("seen here, but not there: %w", err)
	}
	return "seen both ways", nil
}

// resetOurs is the other half of reset: we reset, the listener must see it.
func (d *dialer) resetOurs(ctx context.Context) error {
	s, err := d.open(ctx, ResetMe)
	if err != nil {
		return err
	}
	var b [1]byte
	if _, err := s.Write(b[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return err
	}
	s.Reset()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s, err := d.open(ctx, ResetCount)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(s) // our end could meet the STOP_SENDING of the listener's Close
		s.Close()
		if err != nil {
			return err
		}
		if n, err := strconv.Atoi(string(text)); err != nil || n > 0 {
			return err
		}
		if time.Now().After(end) {
			return errors.New("the listener counts no reset within 5 s")
		}
	}
}

func (d *dialer) perf(ctx context.Context) (string, error) {
	measure := func(up, down int64) (float64, error) {
		s, err := d.open(ctx, Perf)
		if err != nil {
			return 0, err
		}
		defer s.Close()
		start := time.Now()
		var head [8]byte
		binary.BigEndian.PutUint64(head[:], uint64(down))
		if _, err := s.Write(head[:]); err != nil {
			return 0, err
		}
		if err := writeZeros(s, up); err != nil {
			return 0, err
		}
		if err := s.CloseWrite(); err != nil {
			return 0, err
		}
		n, err := io.Copy(io.Discard, s)
		if err == nil && n != down {
			err = fmt.Errorf("%d bytes came back, not %d", n, down)
		}
		return float64(up+down) / 1e6 / time.Since(start).Seconds(), err
	}
	up, err := measure(perfBytes, 0)
	if err != nil {
		return "", fmt.Errorf("up: %w", err)
	}
	down, err := measure(0, perfBytes)
	if err != nil {
		return "", fmt.Errorf("down: %w", err)
	}
	return fmt.Sprintf("up %.0f down %.0f MB/s", up, down), nil
}

// wrongPeer dials the same address under a peer ID that is not there.
func (d *dialer) wrongPeer(ctx context.Context) (string, error) {
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	// An identity multihash of the PublicKey message, as every ed25519 peer ID.
	id := base58.Encode(append([]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}, pub...))
	addr, _, _ := strings.Cut(d.to, "/p2p/")
	c, err := d.stack.Dial(ctx, addr+"/p2p/"+id, d.offer)
	if err == nil {
		c.Close()
		return "", errors.New("connected to a peer that is not there")
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("timed out, was not refused: %w", err)
	}
	return "refused: " + err.Error(), nil
}

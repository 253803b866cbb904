package security_test

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/securitytest"
)

func TestAgree(t *testing.T) {
	for _, c := range []struct {
		client, server []string
		want           string
	}{
		{[]string{"a", "b"}, []string{"b", "a"}, "a"},
		{[]string{"x", "b"}, []string{"a", "b"}, "b"},
		{[]string{"a"}, []string{"b"}, ""},
		{nil, []string{"a"}, ""},
		{[]string{"a"}, nil, ""},
	} {
		if got := security.Agree(c.client, c.server); got != c.want {
			t.Errorf("%v and %v: got %q, want %q", c.client, c.server, got, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	k, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	h := security.Handshake{}
	if err := h.Check(k.ID()); err != nil {
		t.Errorf("anybody: %v", err)
	}
	h.Want = k.ID()
	if err := h.Check(k.ID()); err != nil {
		t.Errorf("the right one: %v", err)
	}
	err = h.Check("other")
	var m *security.MismatchError
	if !errors.As(err, &m) || m.Want != k.ID() || m.Got != "other" || !errors.Is(err, security.ErrHandshake) {
		t.Errorf("another: %v", err)
	}
	if got := security.Failed("/x", err); got != err {
		t.Errorf("a failure was wrapped again: %v", got)
	}
	if got := security.Failed("/x", io.EOF); !errors.Is(got, io.EOF) || !errors.Is(got, security.ErrHandshake) {
		t.Errorf("got %v", got)
	}
}

func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := securitytest.Pipe()
		read := func() error { _, err := a.Read(make([]byte, 1)); return err }

		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("why"))
		defer cancel()
		err := security.Within(ctx, a, read)
		if !errors.Is(err, context.Cause(ctx)) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want the cause and the timeout", err)
		}
		b.Write([]byte{1})
		if err := read(); err != nil {
			t.Errorf("afterwards: %v, want no deadline", err)
		}

		// Success stays success, also when ctx ends at the last moment.
		ctx, cancel = context.WithCancel(t.Context())
		if err := security.Within(ctx, a, func() error { cancel(); synctest.Wait(); return nil }); err != nil {
			t.Errorf("got %v", err)
		}
		b.Write([]byte{1})
		if err := read(); err != nil {
			t.Errorf("afterwards: %v, want no deadline", err)
		}

		// A failure of its own stays its own.
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		b.Close()
		if err := security.Within(ctx, a, read); err != io.EOF {
			t.Errorf("got %v, want EOF", err)
		}
		if err := security.Within(context.Background(), a, read); err != io.EOF {
			t.Errorf("without an end: got %v, want EOF", err)
		}
	})
}

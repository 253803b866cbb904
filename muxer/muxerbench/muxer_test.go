package main

import (
	"bytes"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/mplex"
	"github.com/plexus-p2p/plexus/muxer/muxertest"
	"github.com/plexus-p2p/plexus/muxer/yamux"
)

// muxers are the columns of the table.
var muxers = []muxer.Muxer{
	yamux.Muxer{},
	mplex.Muxer{},
}

var links = []muxertest.Kind{
	{Name: "pipe", Make: func(testing.TB) (net.Conn, net.Conn) { return muxertest.Pipe(64 << 10) }},
	{Name: "tcp", Make: func(t testing.TB) (net.Conn, net.Conn) { return muxertest.TCP(t) }},
}

func BenchmarkMuxer(b *testing.B) {
	for _, l := range links {
		for _, m := range muxers {
			b.Run(l.Name+"/"+strings.Split(m.ID(), "/")[1], func(b *testing.B) { muxertest.Benchmark(b, m, l.Make) })
		}
	}
}

func TestTable(t *testing.T) {
	in, err := os.ReadFile("testdata/bench.txt")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/table.md")
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := table(&got, bytes.NewReader(in)); err != nil || got.String() != string(want) {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got.Bytes(), want)
	}
	for _, bad := range []string{"", "PASS\n", "BenchmarkMuxer/tcp/yamux/RoundTrip-2 1 x ns/op\n"} {
		if table(&got, strings.NewReader(bad)) == nil {
			t.Errorf("a table of %q", bad)
		}
	}
}

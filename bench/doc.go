// Command bench measures plexus beside go-libp2p, and beside what neither can beat:
// bare TCP, crypto/tls and quic-go connections, and bare Noise messages over TCP.
//
// Each implementation runs as two processes, a server and a client, on
// loopback. All of them take their turns in interleaved rounds, so that a machine that
// is busy for a while is busy for all. The table gives the median over the
// rounds with the lowest and the highest, the ratio to go-libp2p, and the CPU time of
// both ends, which stays comparable on a busy machine.
//
//	go run . -rounds 5             everything
//	go run . -only 'rtt|open'      some of it
//	go run . -md ../docs/bench.md  and keep the table
//	go run . -profile /tmp/prof    and where the CPU time goes, for go tool pprof
//	go run . -mixed -stack noise   also a client of one and a server of the other
//	go run . -growth growth.md     how costs grow with connections, streams and sizes
//
// The same loads run over every implementation, by the small interface in
// impl.go: same protocols, sizes and application buffers.
package main

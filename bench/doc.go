// Command bench measures plexus beside go-libp2p, and beside what neither can
// beat: bare TCP and crypto/tls connections.
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
//
// The same loads run over every implementation, by the small interface in
// impl.go: same protocols, sizes and application buffers.
package main

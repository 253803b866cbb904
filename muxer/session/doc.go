// Package session is the engine that all muxers share: the table of streams, who
// reads and who writes the connection, buffers, windows, deadlines and endings.
// A muxer such as yamux adds its frames, as a [Wire], and its rules, as a [Config].
//
// The files, in the order in which a byte meets them:
//
//	write.go    Stream.Write → a batch of frames → conn.Write
//	wire.go     what the engine asks of a protocol: Append and Parse frames
//	read.go     conn.Read → frames; who reads, and for whom
//	frames.go   what each frame that arrives does
//	buffer.go   bytes that wait for their reader
//	stream.go   Stream.Read, deadlines, and the ends of a stream
//	session.go  Config, New, Open, Serve; the ends of a session
//	alive.go    pings, round-trip time, keepalive
//
// # Reading
//
// A session has one read token. Whoever holds it, the leader, reads the
// connection and delivers what arrives, for all streams. A Read that finds no
// data takes the token if it is free, so the goroutine that wants a byte is the
// one that the system wakes for it: a request and its answer cost no switch
// between goroutines. A leader leaves when its own stream has something. If its
// reader comes back quickly, as it did before, the token stays free for it for a
// moment (grace). Else, or if nobody comes, it goes to another blocked Read, to a
// Write that waits for its window, or at last to Serve, whose goroutine is the
// session's only one. A leader that finds bytes for a quick reader of another
// stream steps back for it in the same way.
//
// A leader never writes. Its deadline, or its stream's end, wakes it by a read
// deadline of the connection in the past, which loses no bytes.
//
// # Writing
//
// A session has one write token. A Write that finds it free puts frames into one
// batch and gives that to the connection itself; meanwhile others queue. When
// the token is free again, one of them takes the next batch: control frames
// first, then a turn for each stream that waits. Whoever must not block in a write
// (the leader, Close, a Write with a deadline) starts a goroutine that writes
// one batch and ends.
//
// Frames that nobody waits for, such as the acknowledgement of a stream, or its
// end after the peer has answered, ride with the next batch, or leave a moment
// later by themselves.
//
// Where many streams wait, they have turns of quantum bytes. One that had nothing to
// send before comes first, so that small messages do not queue behind bulk.
//
// # Limits
//
// A Write without a deadline writes to the connection itself. If that takes no
// bytes at all, Close of the stream, or a deadline that is set later, ends this one
// Write when the connection moves again, or the session is found dead.
//
// # Locks
//
// Session.mu guards everything, streams included. It is never held across
// conn.Read, conn.Write, conn.Close or the accept function. Everybody waits on
// condition variables under it.
package session

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
// (the leader, Close) starts a goroutine that writes one batch and ends.
//
// A Write whose deadline passes in conn.Write, or whose stream ends, is woken by a write
// deadline of the connection in the past. Such a goroutine then writes the rest.
//
// Small Writes that follow each other without a pause are held: copied into a buffer of
// their stream, from which they leave in one frame as soon as the one before has left.
// A Write that comes alone goes out before it returns.
//
// Frames that nobody waits for, such as the acknowledgement of a stream, or its
// end after the peer has answered, ride with the next batch, or leave a moment
// later by themselves.
//
// A moment is a millisecond, and while traffic keeps coming up to maxCalm times doubled:
// a timer that fires for each would wake threads that have nothing to do.
//
// Where many streams wait, they have turns of quantum bytes. One that had nothing to
// send before comes first, so that small messages do not queue behind bulk.
//
// # The connection
//
// Its deadlines must lose no bytes, as security.Conn says: a Write that a deadline
// ended after n bytes is followed by one of the rest, even if that is empty.
//
// # Locks
//
// Session.mu guards everything, streams included. It is never held across
// conn.Read, conn.Write, conn.Close or the accept function. Everybody waits on
// condition variables under it.
package session

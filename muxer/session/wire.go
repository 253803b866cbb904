package session

// A Wire is a muxer's protocol: how its frames look. It is called under the
// session's lock, one call at a time.
type Wire interface {
	// Append appends f, without its body, which the engine appends after it.
	// If the protocol has no frame for f, it appends nothing.
	Append(b []byte, f Frame) []byte

	// Parse reads the frame at the start of b and returns how many bytes it
	// takes, without its body. It returns 0 while b is too short to tell.
	Parse(b []byte) (f Frame, n int, err error)
}

// Kind says what a frame is for.
type Kind uint8

const (
	Data   Kind = iota // Body bytes of a stream follow
	Window             // Value more bytes of the stream may be sent; 0: the frame only carries flags
	Reset              // the stream ends at once, both ways; Value is the Code
	Ping               // Value is to be echoed
	Pong               // the echo
	GoAway             // the session ends; Value is the Code, and ID the highest that the sender has seen
	Skip               // nothing, but that Body bytes without a meaning follow
)

// Flags of Data and Window frames.
type Flags uint8

const (
	Open Flags = 1 << iota // the first frame of a stream
	Ack                    // the first frame in answer to Open
	Fin                    // the last frame of a stream in this direction; it has no body
)

// A Frame is what a protocol's frame means to the engine.
type Frame struct {
	Kind  Kind
	Flags Flags
	Body  int    // bytes that follow
	ID    uint64 // the stream; unique among those of both ends, even and odd
	Value uint64
}

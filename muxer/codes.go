package muxer

import "fmt"

// Why a connection ended. Append only.
//
// The numbers are those that go-libp2p deploys. The draft agrees with them for
// connections; for streams it starts one lower.
// https://github.com/libp2p/specs/pull/623
const (
	ConnProtocolNegotiationFailed Code = 0x1000 + iota
	ConnResourceLimitExceeded
	ConnRateLimited
	ConnProtocolViolation
	ConnSupplanted
	ConnGarbageCollected
	ConnShutdown
	ConnGated
	ConnCodeOutOfRange
)

// Why a stream was reset. Append only.
const (
	StreamProtocolNegotiationFailed Code = 0x1001 + iota
	StreamResourceLimitExceeded
	StreamRateLimited
	StreamProtocolViolation
	StreamSupplanted
	StreamGarbageCollected
	StreamShutdown
	StreamGated
	StreamCodeOutOfRange
)

// names are what the codes of connections and, one later, of streams mean.
var names = [...]string{
	"protocol negotiation failed", "resource limit exceeded", "rate limited", "protocol violation",
	"supplanted", "garbage collected", "shutdown", "gated", "code out of range",
}

// describe names a code, of those that begin with first.
func describe(c, first Code) string {
	switch i := int64(c) - int64(first); {
	case c == 0:
		return ""
	case i >= 0 && i < int64(len(names)):
		return ": " + names[i]
	}
	return fmt.Sprintf(": code %#x", uint32(c))
}

package muxer

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

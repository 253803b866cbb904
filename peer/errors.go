package peer

import "errors"

// What the errors of this package wrap; test for them with errors.Is.
var (
	// ErrID means that bytes or a text are not a peer ID.
	ErrID = errors.New("peer: not a peer ID")

	// ErrKey means that a key is malformed, of an unknown type, or too weak or
	// too large to use; or that it is a zero value.
	ErrKey = errors.New("peer: bad key")

	// ErrNoKey means that an ID is a hash and does not hold its key.
	ErrNoKey = errors.New("peer: the ID does not hold its key")

	// ErrSignature means that a signature was not made by this key over this
	// message.
	ErrSignature = errors.New("peer: the signature does not verify")

	// ErrAddr means that an address does not end in a peer ID.
	ErrAddr = errors.New("peer: not the address of a peer")

	// ErrEnvelope means that a signed envelope is malformed, too large, or holds
	// another type of payload than was asked for.
	ErrEnvelope = errors.New("peer: bad signed envelope")

	// ErrRecord means that a peer record is malformed or too large.
	ErrRecord = errors.New("peer: bad peer record")

	// ErrSigner means that a peer record is about somebody else than its signer.
	ErrSigner = errors.New("peer: not signed by the peer itself")

	// ErrExposed means that others than the owner may access a key file.
	ErrExposed = errors.New("others than the owner may access this key")
)

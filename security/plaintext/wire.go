package plaintext

import (
	"github.com/plexus-p2p/plexus/internal/pb"
)

// exchange is the one message.
//
//	message Exchange {
//		optional bytes id = 1;
//		optional PublicKey pubkey = 2;
//	}
//
// https://github.com/libp2p/specs/blob/master/plaintext/README.md#messages
type exchange struct {
	id, key []byte // key is the PublicKey message
}

// maxExchange is how many bytes a message may have. A key of RSA-8192 takes 1.1 KiB.
const maxExchange = 4 << 10

func appendExchange(b []byte, e exchange) []byte {
	b = pb.AppendBytes(b, 1, e.id)
	return pb.AppendBytes(b, 2, e.key)
}

// parseExchange parses a message. The slices of the result lie in b.
func parseExchange(b []byte) (e exchange, err error) {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			e.id = d.Bytes()
		case 2:
			e.key = d.Bytes()
		}
	}
	return e, d.Err()
}

package noise

import (
	"errors"

	"github.com/plexus-p2p/plexus/internal/pb"
)

// payload is what messages 2 and 3 of the handshake carry.
//
//	message NoiseExtensions {
//		repeated bytes webtransport_certhashes = 1;
//		repeated string stream_muxers = 2;
//	}
//	message NoiseHandshakePayload {
//		optional bytes identity_key = 1;
//		optional bytes identity_sig = 2;
//		optional NoiseExtensions extensions = 4;
//	}
//
// https://github.com/libp2p/specs/blob/master/noise/README.md#the-libp2p-handshake-payload
type payload struct {
	key, sig   []byte
	certHashes [][]byte
	muxers     []string
}

// What a payload may hold.
const (
	maxMessage    = 16 << 10 // bytes of a handshake message; an RSA-8192 identity has 2 KiB
	maxMuxers     = 100      // as go-libp2p, which takes a longer list for none
	maxMuxerID    = 1024     // bytes, as multiselect
	maxCertHashes = 100
)

var (
	errNoKey      = errors.New("security.Handshake has no Key")
	errNoIdentity = errors.New("the payload lacks identity_key or identity_sig")
	errTooMany    = errors.New("the payload holds too many certificate hashes")
	errTooLong    = errors.New("the payload names a muxer of more than 1024 bytes")
	errTooLarge   = errors.New("a handshake message is too large")
)

func appendPayload(b []byte, p payload) []byte {
	b = appendIdentity(b, p.key, p.sig)
	return appendExtensions(b, p.certHashes, p.muxers)
}

func appendIdentity(b, key, sig []byte) []byte {
	b = pb.AppendBytes(b, 1, key)
	return pb.AppendBytes(b, 2, sig)
}

func appendExtensions(b []byte, certHashes [][]byte, muxers []string) []byte {
	if len(certHashes)+len(muxers) == 0 {
		return b
	}
	b, ext := pb.Begin(b, 4)
	for _, h := range certHashes {
		b = pb.AppendBytes(b, 1, h)
	}
	for _, m := range muxers {
		b = pb.AppendBytes(b, 2, m)
	}
	return pb.End(b, ext)
}

// parsePayload parses a payload. The byte slices of the result lie in b.
func parsePayload(b []byte) (payload, error) {
	var p payload
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			p.key = d.Bytes()
		case 2:
			p.sig = d.Bytes()
		case 4:
			if err := p.parseExtensions(d.Bytes()); err != nil {
				return p, err
			}
		}
	}
	if err := d.Err(); err != nil {
		return p, err
	}
	if len(p.key) == 0 || len(p.sig) == 0 {
		return p, errNoIdentity
	}
	if len(p.muxers) > maxMuxers {
		p.muxers = nil
	}
	return p, nil
}

func (p *payload) parseExtensions(b []byte) error {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			if len(p.certHashes) == maxCertHashes {
				return errTooMany
			}
			p.certHashes = append(p.certHashes, d.Bytes())
		case 2:
			id := d.Bytes()
			if len(id) > maxMuxerID {
				return errTooLong
			}
			if len(p.muxers) <= maxMuxers { // one more than allowed tells
				p.muxers = append(p.muxers, string(id))
			}
		}
	}
	return d.Err()
}

package noise

import (
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

// xx is the state of one handshake:
//
//	XX:
//	  -> e
//	  <- e, ee, s, es    with the responder's payload
//	  -> s, se           with the initiator's payload
//
// Calls of write and read take turns, the initiator's write first. After an error it
// must not be used.
//
// https://noiseprotocol.org/noise.html#processing-rules
type xx struct {
	symmetric
	initiator   bool
	step        int // messages so far
	s, e        *ecdh.PrivateKey
	theirS      *ecdh.PublicKey
	theirE      *ecdh.PublicKey
	random      io.Reader
	first, last [32]byte // after the last message: the keys to send with, the initiator's first
}

// name is as long as a hash, so it is the first one.
//
// "If protocol_name is less than or equal to HASHLEN bytes in length, sets h equal to
// protocol_name with zero bytes appended to make HASHLEN bytes."
// https://noiseprotocol.org/noise.html#the-symmetricstate-object
const name = "Noise_XX_25519_ChaChaPoly_SHA256"

const keyLen = 32 // bytes of an X25519 key

func newXX(initiator bool, prologue []byte, static *ecdh.PrivateKey, random io.Reader) *xx {
	x := &xx{initiator: initiator, s: static, random: random}
	x.digest = sha256.New()
	x.h = [32]byte([]byte(name))
	x.ck = x.h
	x.mixHash(prologue)
	return x
}

// write appends the next message to b.
func (x *xx) write(b, payload []byte) ([]byte, error) {
	x.step++
	if x.step < 3 {
		var err error
		if x.e, err = newKey(x.random); err != nil {
			return nil, err
		}
		b = append(b, x.e.PublicKey().Bytes()...)
		x.mixHash(b[len(b)-keyLen:])
	}
	if x.step == 2 {
		if err := x.mixDH(x.e, x.theirE); err != nil { // ee
			return nil, err
		}
	}
	if x.step > 1 {
		b = x.seal(b, x.s.PublicKey().Bytes())
		if err := x.mixDH(x.s, x.theirE); err != nil { // es of a responder, se of an initiator
			return nil, err
		}
	}
	b = x.seal(b, payload)
	x.finish()
	return b, nil
}

// read takes the peer's next message and returns its payload, which lies in b.
func (x *xx) read(b []byte) ([]byte, error) {
	x.step++
	if x.step < 3 {
		if len(b) < keyLen {
			return nil, errShortMessage
		}
		var err error
		if x.theirE, err = ecdh.X25519().NewPublicKey(b[:keyLen]); err != nil {
			return nil, err
		}
		x.mixHash(b[:keyLen])
		b = b[keyLen:]
	}
	if x.step == 2 {
		if err := x.mixDH(x.e, x.theirE); err != nil { // ee
			return nil, err
		}
	}
	if x.step > 1 {
		if len(b) < keyLen+tag {
			return nil, errShortMessage
		}
		s, err := x.open(b[:keyLen+tag])
		if err != nil {
			return nil, err
		}
		if x.theirS, err = ecdh.X25519().NewPublicKey(s); err != nil {
			return nil, err
		}
		if err := x.mixDH(x.e, x.theirS); err != nil { // es of an initiator, se of a responder
			return nil, err
		}
		b = b[keyLen+tag:]
	}
	payload, err := x.open(b)
	x.finish()
	return payload, err
}

// finish makes the keys of the records, after the last message.
func (x *xx) finish() {
	if x.step == 3 {
		x.first, x.last = x.hkdf(nil)
	}
}

// mixDH mixes a shared secret in. It fails if the peer sent a point of low order, whose
// product everybody knows.
func (x *xx) mixDH(own *ecdh.PrivateKey, theirs *ecdh.PublicKey) error {
	secret, err := own.ECDH(theirs)
	if err == nil {
		x.mixKey(secret)
	}
	return err
}

var (
	errShortMessage = errors.New("noise: a handshake message is too short")
	errForged       = errors.New("noise: a handshake message was forged or changed, or the prologues differ")
)

// symmetric is what the Noise specification calls SymmetricState: the hash of all that
// was said, and the keys that follow from it.
//
// https://noiseprotocol.org/noise.html#the-symmetricstate-object
type symmetric struct {
	h, ck  [32]byte
	aead   cipher.AEAD // nil before the first secret
	nonce  [chacha20poly1305.NonceSize]byte
	digest hash.Hash

	// Scratch, because what goes into digest would be allocated each time.
	block    [sha256.BlockSize]byte
	sum, one [sha256.Size]byte
}

func (s *symmetric) mixHash(data []byte) {
	s.digest.Reset()
	s.digest.Write(s.h[:])
	s.digest.Write(data)
	s.digest.Sum(s.h[:0])
}

func (s *symmetric) mixKey(secret []byte) {
	s.ck, s.one = s.hkdf(secret)
	s.aead, _ = chacha20poly1305.New(s.one[:]) // the key has the right size
	s.nonce = [chacha20poly1305.NonceSize]byte{}
}

// seal appends p to b, encrypted if there is a key.
func (s *symmetric) seal(b, p []byte) []byte {
	n := len(b)
	if s.aead == nil {
		b = append(b, p...)
	} else {
		b = s.aead.Seal(b, s.nonce[:], p, s.h[:])
		s.nonce[nonceZero]++ // of the few under one key
	}
	s.mixHash(b[n:])
	return b
}

// open decrypts b, where it lies.
func (s *symmetric) open(b []byte) ([]byte, error) {
	s.sum = s.h
	s.mixHash(b)
	if s.aead == nil {
		return b, nil
	}
	p, err := s.aead.Open(b[:0], s.nonce[:], b, s.sum[:])
	if err != nil {
		return nil, errForged
	}
	s.nonce[nonceZero]++
	return p, nil
}

// hkdf makes two keys of the chaining key and a secret.
//
// https://noiseprotocol.org/noise.html#hash-functions
func (s *symmetric) hkdf(secret []byte) (one, two [32]byte) {
	temp := s.hmac(&s.ck, secret, 0)
	s.one = s.hmac(&temp, nil, 1)
	return s.one, s.hmac(&temp, s.one[:], 2)
}

// hmac is HMAC-SHA-256 of data and last, if that is not 0. crypto/hmac would allocate
// for each of the many keys that are used once.
func (s *symmetric) hmac(key *[32]byte, data []byte, last byte) [32]byte {
	s.pad(key, 0x36)
	s.digest.Write(data)
	if last > 0 {
		s.block[0] = last
		s.digest.Write(s.block[:1])
	}
	s.digest.Sum(s.sum[:0])
	s.pad(key, 0x5c)
	s.digest.Write(s.sum[:])
	s.digest.Sum(s.sum[:0])
	return s.sum
}

// pad starts the digest with key, padded as HMAC says.
func (s *symmetric) pad(key *[32]byte, with byte) {
	s.block = [sha256.BlockSize]byte{}
	copy(s.block[:], key[:])
	for i := range s.block {
		s.block[i] ^= with
	}
	s.digest.Reset()
	s.digest.Write(s.block[:])
}

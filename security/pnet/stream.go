package pnet

import (
	"crypto/subtle"
	enc "encoding/binary"

	//lint:ignore SA1019 salsa20 itself has no stream that one can go on with
	"golang.org/x/crypto/salsa20/salsa"
)

const (
	nonceSize = 24
	blockSize = 64
)

// stream is the key stream of XSalsa20, at a position.
//
// https://cr.yp.to/snuffle/xsalsa-20081128.pdf
type stream struct {
	key   [32]byte
	nonce [8]byte
	pos   uint64          // 2^64 bytes are more than will ever be sent
	block [blockSize]byte // the one that pos is within, if it is
}

func (s *stream) init(k *Key, nonce *[nonceSize]byte) {
	salsa.HSalsa20(&s.key, (*[16]byte)(nonce[:16]), (*[32]byte)(k), &salsa.Sigma)
	copy(s.nonce[:], nonce[16:])
	s.pos = 0
}

// xor sets dst to src ⊕ the stream, and goes on. They overlap in full or not at all.
func (s *stream) xor(dst, src []byte) {
	if at := s.pos % blockSize; at > 0 {
		n := subtle.XORBytes(dst, src, s.block[at:])
		s.pos += uint64(n)
		dst, src = dst[n:], src[n:]
	}
	if n := len(src) &^ (blockSize - 1); n > 0 {
		s.crypt(dst[:n], src[:n])
		s.pos += uint64(n)
		dst, src = dst[n:], src[n:]
	}
	if len(src) > 0 {
		s.fill()
		subtle.XORBytes(dst, src, s.block[:])
		s.pos += uint64(len(src))
	}
}

// seek goes to a position.
func (s *stream) seek(pos uint64) {
	s.pos = pos
	if pos%blockSize > 0 {
		s.fill()
	}
}

// fill makes the block that pos is in.
func (s *stream) fill() {
	clear(s.block[:])
	s.crypt(s.block[:], s.block[:])
}

func (s *stream) crypt(dst, src []byte) {
	var counter [16]byte
	copy(counter[:], s.nonce[:])
	enc.LittleEndian.PutUint64(counter[8:], s.pos/blockSize)
	salsa.XORKeyStream(dst, src, &counter, &s.key)
}

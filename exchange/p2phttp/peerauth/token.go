package peerauth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/plexus-p2p/plexus/peer"
)

// state is what the server has to remember of a client. It gives it to the client, as
// opaque in a handshake and as bearer afterwards:
//
//	base64url(HMAC-SHA-256(secret, JSON) ‖ JSON)
//
// The form is the server's own affair. This one is that of go-libp2p, because with it
// the spec's transcripts can be reproduced.
type state struct {
	IsToken   bool      `json:"is-token,omitempty"`
	ClientKey []byte    `json:"client-public-key,omitempty"` // where the client began
	Peer      peer.ID   `json:"peer-id,omitempty"`           // of a token
	Challenge string    `json:"challenge-client,omitempty"`
	Hostname  string    `json:"hostname"`
	Created   time.Time `json:"created-time"`
}

func (s state) seal(secret []byte) (string, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", err // a time beyond the year 9999
	}
	return base64url(append(mac(secret, b), b...)), nil
}

// open reads what seal has made, not longer than ttl ago.
func open(text string, secret []byte, now time.Time, ttl time.Duration) (state, error) {
	var s state
	b, err := unbase64(text)
	if err != nil || len(b) < sha256.Size {
		return s, fmt.Errorf("%w: too short, or not base64", ErrForged)
	}
	sum, b := b[:sha256.Size], b[sha256.Size:]
	if !hmac.Equal(sum, mac(secret, b)) {
		return s, ErrForged
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%w: %w", ErrForged, err)
	}
	// Clocks of a fleet that shares a secret differ; one may even be set back.
	if age := now.Sub(s.Created); age > ttl || age < -ttl {
		return s, fmt.Errorf("%w: %v old", ErrExpired, age.Round(time.Second))
	}
	return s, nil
}

func mac(secret, b []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write(b)
	return h.Sum(nil)
}

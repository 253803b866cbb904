package peerauth

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The headers of a handshake that the client begins, and its answers:
//
//	> Authorization: libp2p-PeerID challenge-server="…", public-key="…"
//	< WWW-Authenticate: libp2p-PeerID challenge-client="…", public-key="…", sig="…", opaque="…"
//	> Authorization: libp2p-PeerID opaque="…", sig="…"
//	< Authentication-Info: libp2p-PeerID bearer="…", expires="…"
//
// and of one that the server begins:
//
//	< WWW-Authenticate: libp2p-PeerID challenge-client="…", public-key="…", opaque="…"
//	> Authorization: libp2p-PeerID public-key="…", challenge-server="…", sig="…", opaque="…"
//	< Authentication-Info: libp2p-PeerID sig="…", bearer="…", expires="…"
//
// From then on:
//
//	> Authorization: libp2p-PeerID bearer="…"
//
// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#mutual-client-and-server-peer-id-authentication
const (
	headerAsk    = "WWW-Authenticate"
	headerAnswer = "Authorization"
	headerInfo   = "Authentication-Info"

	paramChallengeClient = "challenge-client"
	paramChallengeServer = "challenge-server"
	paramPublicKey       = "public-key"
	paramSig             = "sig"
	paramOpaque          = "opaque"
	paramBearer          = "bearer"
	paramExpires         = "expires"

	paramHostname  = "hostname" // signed, not sent
	paramServerKey = "server-public-key"
	paramClientKey = "client-public-key"
)

// minChallenge is how long a challenge has to be, in characters, as in go-libp2p. A
// short one would let who has seen enough answers choose.
const minChallenge = 32

// params are the parameters of a header, "" where there is none.
type params struct {
	challengeClient, challengeServer string
	publicKey, sig                   string
	opaque, bearer, expires          string
}

// field is where a parameter goes, nil if nobody knows it.
func (p *params) field(name string) *string {
	switch strings.ToLower(name) {
	case paramChallengeClient:
		return &p.challengeClient
	case paramChallengeServer:
		return &p.challengeServer
	case paramPublicKey:
		return &p.publicKey
	case paramSig:
		return &p.sig
	case paramOpaque:
		return &p.opaque
	case paramBearer:
		return &p.bearer
	case paramExpires:
		return &p.expires
	}
	return nil
}

// parse finds the scheme's parameters in a header; false if it is not there. A
// header may have other schemes before and after it:
//
//	Basic realm="x", libp2p-PeerID a="b", c="d", Negotiate abc=
//
// https://www.rfc-editor.org/rfc/rfc9110#name-authentication-scheme
//
// The commas may be missing, as they are in places of the spec. Unknown parameters
// are left out; known ones must not repeat.
func parse(header string) (p params, found bool, err error) {
	if len(header) > MaxHeader {
		return params{}, false, fmt.Errorf("%w: %d bytes", ErrTooLong, len(header))
	}
	ours := false
	for s := header; ; {
		if s = strings.TrimLeft(s, " \t,"); s == "" {
			return p, found, nil
		}
		name, rest := word(s)
		if name == "" {
			return params{}, false, fmt.Errorf("%w: %q where a name should be", ErrHeader, s[0])
		}
		after := strings.TrimLeft(rest, " \t")
		if !strings.HasPrefix(after, "=") { // a scheme
			if ours = strings.EqualFold(name, Scheme); ours && found {
				return params{}, false, fmt.Errorf("%w: %s comes twice", ErrHeader, Scheme)
			}
			found = found || ours
			s = rest
			continue
		}
		var value string
		if value, s, err = parseValue(strings.TrimLeft(after[1:], " \t")); err != nil {
			return params{}, false, fmt.Errorf("%w: parameter %.32q: %w", ErrHeader, name, err)
		}
		if !ours {
			continue
		}
		f := p.field(name)
		switch {
		case f == nil:
			continue
		case *f != "":
			return params{}, false, fmt.Errorf("%w: %s comes twice", ErrHeader, name)
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
			return params{}, false, fmt.Errorf("%w: %s is not ASCII", ErrHeader, name)
		}
		*f = value
	}
}

// word takes what stands before a space, a comma, an equals sign or a quote.
func word(s string) (w, rest string) {
	if i := strings.IndexAny(s, " \t,=\""); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// parseValue takes a quoted string or a token.
func parseValue(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		// More than the characters of a token are let through, because base64
		// without quotes, as other schemes have it, ends in "=".
		i := strings.IndexAny(s, " \t,\"")
		if i < 0 {
			i = len(s)
		}
		return s[:i], s[i:], nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], nil
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("the quote is not closed")
}

// header makes a header of names and values. Parameters without value are left out.
func header(pairs ...string) (string, error) {
	b := []byte(Scheme)
	sep := " "
	for ; len(pairs) > 0; pairs = pairs[2:] {
		if pairs[1] == "" {
			continue
		}
		b = append(b, sep+pairs[0]+`="`...)
		for _, c := range []byte(pairs[1]) {
			if c == '"' || c == '\\' {
				b = append(b, '\\')
			}
			b = append(b, c)
		}
		b = append(b, '"')
		sep = ", "
	}
	if len(b) > MaxHeader {
		return "", fmt.Errorf("%w: %d bytes", ErrTooLong, len(b))
	}
	return string(b), nil
}

// signed is what a signature is over, given the names and values of parameters.
//
// "The parameters are sorted alphabetically, prepended with a varint length prefix, and
// concatenated together to form the data to be signed. The parameter name and
// value is split with a `=`."
// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#signing
func signed(sorted ...string) []byte {
	b := []byte(Scheme)
	for ; len(sorted) > 0; sorted = sorted[2:] {
		name, value := sorted[0], sorted[1]
		b = binary.AppendUvarint(b, uint64(len(name)+1+len(value)))
		b = append(b, name...)
		b = append(b, '=')
		b = append(b, value...)
	}
	return b
}

func signedByClient(challenge string, serverKey []byte, hostname string) []byte {
	return signed(paramChallengeClient, challenge, paramHostname, hostname, paramServerKey, string(serverKey))
}

func signedByServer(challenge string, clientKey []byte, hostname string) []byte {
	return signed(paramChallengeServer, challenge, paramClientKey, string(clientKey), paramHostname, hostname)
}

// "The base64 encoding follows Base 64 Encoding with URL and Filename Safe
// Alphabet from RFC 4648. Padding MAY be omitted."
// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#base64-encoding
func unbase64(s string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(s, "="))
}

// base64url writes the padding, which go-libp2p asks for.
func base64url(b []byte) string { return base64.URLEncoding.EncodeToString(b) }

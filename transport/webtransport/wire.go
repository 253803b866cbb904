package webtransport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/certhash"
)

var webTransport = ma.StringCast("/quic-v1/webtransport")

// withHashes returns /ip4/…/udp/…/quic-v1/webtransport with a /certhash for each hash, or nil.
func withHashes(at netip.AddrPort, hashes ...[]byte) ma.Multiaddr {
	udp, err := transport.FromUDP(at)
	if err != nil {
		return nil
	}
	m := udp.Encapsulate(webTransport)
	for _, h := range hashes {
		c, err := certhash.Component(h)
		if err != nil {
			return nil
		}
		m = append(m, *c)
	}
	return m
}

// parseAddr takes an address apart. The hashes are multihashes.
func parseAddr(a ma.Multiaddr) (at netip.AddrPort, hashes [][]byte, ok bool) {
	at, rest, ok := transport.UDPAddrPort(a)
	if !ok || len(rest) < 2 || rest[0].Code() != ma.P_QUIC_V1 || rest[1].Code() != ma.P_WEBTRANSPORT {
		return at, nil, false
	}
	for _, c := range rest[2:] {
		if c.Code() != ma.P_CERTHASH {
			return at, nil, false
		}
		hashes = append(hashes, c.RawValue())
	}
	return at, hashes, true
}

// Settings of HTTP/3, by the drafts of WebTransport that are in use.
// https://www.ietf.org/archive/id/draft-ietf-webtrans-http3-15.html#section-9.2
const (
	settingDraft2      = 0x2b603742 // SETTINGS_ENABLE_WEBTRANSPORT, up to draft 6; Chromium
	settingMaxSessions = 0x14e9cd29 // SETTINGS_WT_MAX_SESSIONS, from draft 13; Safari
	settingEnabled     = 0x2c7cf000 // SETTINGS_WT_ENABLED, from draft 15
)

// settings are ours. A client needs not the others, but a server may want them.
var settings = map[uint64]uint64{settingDraft2: 1, settingMaxSessions: 1, settingEnabled: 1}

// What :protocol of the request is.
const (
	protocol      = "webtransport-h3"
	protocolDraft = "webtransport" // before draft 15
)

// headerDraft2 is a header with which draft 2 has requests begin, with the value 1. Servers
// of go-libp2p up to v0.43 turn down those without.
const headerDraft2 = "Sec-Webtransport-Http3-Draft02"

// protocolFor is the :protocol for a server with these settings.
func protocolFor(s *http3.Settings) (string, error) {
	switch {
	case !s.EnableExtendedConnect, !s.EnableDatagrams:
	case s.Other[settingEnabled] > 0:
		return protocol, nil
	case s.Other[settingDraft2] > 0, s.Other[settingMaxSessions] > 0:
		return protocolDraft, nil
	}
	return "", ErrNoSession
}

// path is what the request is for, and query how.
//
// "The HTTP endpoint of a libp2p WebTransport servers MUST be located at
// /.well-known/libp2p-webtransport. To allow future evolution of the way we run the
// libp2p handshake over WebTransport, we use a URL parameter. The handshake described
// in this document MUST be signaled by setting the type URL parameter to noise."
// https://github.com/libp2p/specs/blob/master/webtransport/README.md#webtransport-http-endpoint
const (
	path  = "/.well-known/libp2p-webtransport"
	query = "type=noise"
)

// refusal is the status with which a request is turned down, or 0.
func refusal(r *http.Request) int {
	switch {
	case r.URL.Path != path:
		return http.StatusNotFound
	case r.Method != http.MethodConnect:
		return http.StatusMethodNotAllowed
	case r.Proto != protocol && r.Proto != protocolDraft:
		return http.StatusNotImplemented
	case !slices.Equal(r.URL.Query()["type"], []string{"noise"}):
		return http.StatusBadRequest
	}
	return 0
}

// frameStream is the type of the frame that a stream begins with. The ID of the session
// follows, which is that of the stream of its request:
//
//	Bidirectional Stream {
//	    Signal Value (i) = 0x41,
//	    Session ID (i),
//	    Stream Body (..)
//	}
//
// https://www.ietf.org/archive/id/draft-ietf-webtrans-http3-15.html#section-4.3
const frameStream = 0x41

func appendPrefix(b []byte, session uint64) []byte {
	return quicvarint.Append(quicvarint.Append(b, frameStream), session)
}

var errPrefix = errors.New("webtransport: a stream that is not the session's")

// parsePrefix looks at the first bytes of a stream, and tells how many more it needs.
func parsePrefix(b []byte, session uint64) (more int, err error) {
	for _, want := range [...]uint64{frameStream, session} {
		if len(b) == 0 {
			return 1, nil
		}
		if n := 1 << (b[0] >> 6); len(b) < n {
			return n - len(b), nil
		}
		v, n, err := quicvarint.Parse(b)
		if err != nil || v != want {
			return 0, errPrefix
		}
		b = b[n:]
	}
	return 0, nil
}

// The codes of streams, 32 bits long, lie in a range of those of HTTP/3, but not at the
// places that are reserved there.
//
//	first = 0x52e4a40fa8db
//	return first + n + floor(n / 0x1e)
//
// https://www.ietf.org/archive/id/draft-ietf-webtrans-http3-15.html#section-4.4
const (
	firstCode = 0x52e4a40fa8db
	lastCode  = 0x52e5ac983162
)

func toWire(c muxer.Code) uint64 { return firstCode + uint64(c) + uint64(c)/0x1e }

// fromWire returns 0 for the codes of others, such as HTTP/3's own.
//
// "If an endpoint receives […] an error code that is not in the range […] there is no
// application error code".
func fromWire(w uint64, _ muxer.Code) muxer.Code {
	if w < firstCode || w > lastCode || (w-0x21)%0x1f == 0 {
		return 0
	}
	n := w - firstCode
	return muxer.Code(n - n/0x1f)
}

// capsuleClose ends a session. It is a message on the stream of the request:
//
//	WT_CLOSE_SESSION Capsule {
//	    Type (i) = WT_CLOSE_SESSION,
//	    Length (i),
//	    Application Error Code (32),
//	    Application Error Message (..8192),
//	}
//
// https://www.ietf.org/archive/id/draft-ietf-webtrans-http3-15.html#section-5
const (
	capsuleClose = 0x2843
	maxMessage   = 1024
)

func appendClose(b []byte, c muxer.Code) []byte {
	b = quicvarint.Append(b, capsuleClose)
	b = quicvarint.Append(b, 4)
	return binary.BigEndian.AppendUint32(b, uint32(c))
}

// readClose reads capsules until one ends the session, and returns its code. The end of
// r ends it too, with code 0.
//
// "Cleanly terminating a CONNECT stream without a WT_CLOSE_SESSION capsule SHALL be
// semantically equivalent to terminating it with a WT_CLOSE_SESSION capsule that has an
// error code of 0 and an empty error string."
func readClose(r io.Reader) (muxer.Code, error) {
	p := http3.NewCapsuleParser(r)
	for {
		typ, c, err := p.Next()
		if err == io.EOF {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		if typ != capsuleClose {
			// "Endpoints MUST silently drop or skip any capsules they do not understand."
			if err := c.Discard(); err != nil {
				return 0, err
			}
			continue
		}
		var code [4]byte
		if n := c.Remaining(); n < int64(len(code)) || n > int64(len(code)+maxMessage) {
			return 0, fmt.Errorf("%w: WT_CLOSE_SESSION of %d bytes", muxer.ErrProtocol, n)
		}
		if _, err := io.ReadFull(c, code[:]); err != nil {
			return 0, err
		}
		return muxer.Code(binary.BigEndian.Uint32(code[:])), nil
	}
}

// Codes with which connections and streams end that have no session to speak of.
const (
	errNo       = quic.ApplicationErrorCode(http3.ErrCodeNoError)
	errLoad     = quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad)
	errRejected = uint64(http3.ErrCodeRequestRejected)
)

package webrtc

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/pion/stun/v3"

	"github.com/plexus-p2p/plexus/transport/internal/rtc"
)

// Prefixes of the server's ufrag, by version of WebRTC-direct.
//
// https://github.com/libp2p/specs/blob/master/webrtc/webrtc-direct.md
const (
	prefixV1 = "libp2p+webrtc+v1/"
	prefixV2 = "libp2p+webrtc+v2/"
)

// errMalformed means that a message cannot be read. It is dropped.
var errMalformed = errors.New("webrtc: malformed message")

// credentials are what one end of WebRTC-direct uses for ICE. There is no signalling,
// so that the server has to infer all from the client's first STUN request.
type credentials struct {
	clientUfrag, clientPwd string
	server                 string // ufrag and password
}

// newCredentials makes those of a client.
func newCredentials(version int) credentials {
	if version == 2 {
		// "A's ICE password […] is encoded in B's ufrag"
		pwd := rand.Text() + rand.Text()
		return credentials{clientUfrag: rand.Text()[:8], clientPwd: pwd, server: prefixV2 + pwd}
	}
	// "A […] sets the ufrag and password […] both to the same value"
	u := prefixV1 + rand.Text() + rand.Text()[:6]
	return credentials{u, u, u}
}

// parseUsername infers a server's password from the USERNAME of a request, which is
// "<server ufrag>:<client ufrag>".
func parseUsername(name string) (credentials, error) {
	server, client, ok := strings.Cut(name, ":")
	if !ok || !rtc.ICEChars(server, 4, 256) || !rtc.ICEChars(client, 4, 256) {
		return credentials{}, fmt.Errorf("%w: ufrag", errMalformed)
	}
	c := credentials{clientUfrag: client, server: server}
	switch {
	case strings.HasPrefix(server, prefixV1):
		if server != client {
			return c, fmt.Errorf("%w: two ufrags in version 1", errMalformed)
		}
		c.clientPwd = client
	case strings.HasPrefix(server, prefixV2):
		if c.clientPwd = server[len(prefixV2):]; !rtc.ICEChars(c.clientPwd, 22, 256) {
			return c, fmt.Errorf("%w: password", errMalformed)
		}
	default:
		// "if B does not recognize the version, or sees no such prefix, it MUST reject the
		// connection rather than guess a version".
		// https://github.com/libp2p/specs/pull/715
		return c, fmt.Errorf("%w: unknown version of WebRTC-direct", errMalformed)
	}
	return c, nil
}

// parseSTUN reads a message. The result does not refer to b.
func parseSTUN(b []byte) (*stun.Message, error) {
	m := &stun.Message{Raw: append([]byte(nil), b...)}
	if err := m.Decode(); err != nil {
		return nil, fmt.Errorf("%w: STUN: %v", errMalformed, err)
	}
	return m, nil
}

// answerRequest returns the answer to a client's request, which needs nothing to be
// remembered: the request says all. It is never longer than twice the request.
func answerRequest(b []byte, from netip.AddrPort) ([]byte, error) {
	m, err := parseSTUN(b)
	if err != nil {
		return nil, err
	}
	if m.Type != stun.BindingRequest {
		return nil, fmt.Errorf("%w: not a request", errMalformed)
	}
	name, err := m.Get(stun.AttrUsername)
	if err != nil {
		return nil, fmt.Errorf("%w: no USERNAME", errMalformed)
	}
	c, err := parseUsername(string(name))
	if err != nil {
		return nil, err
	}
	return answer(m, c.server, from)
}

// answer checks a request, which is made with the password of who gets it, and answers.
func answer(m *stun.Message, pwd string, from netip.AddrPort) ([]byte, error) {
	key := stun.NewShortTermIntegrity(pwd)
	if err := key.Check(m); err != nil {
		return nil, fmt.Errorf("%w: MESSAGE-INTEGRITY", errMalformed)
	}
	r, err := stun.Build(
		stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess,
		&stun.XORMappedAddress{IP: net.IP(from.Addr().Unmap().AsSlice()), Port: int(from.Port())},
		key, stun.Fingerprint,
	)
	if err != nil {
		return nil, err
	}
	return r.Raw, nil
}

// request makes the request of a client, which is the one that controls and
// nominates what there is.
//
// https://www.rfc-editor.org/rfc/rfc8445#section-7.2.2
func (c *credentials) request() (*stun.Message, error) {
	var tie [8]byte
	rand.Read(tie[:])
	return stun.Build(
		stun.TransactionID, stun.BindingRequest,
		stun.NewUsername(c.server+":"+c.clientUfrag),
		stun.RawAttribute{Type: stun.AttrPriority, Value: []byte{110, 255, 255, 255}},
		stun.RawAttribute{Type: stun.AttrICEControlling, Value: tie[:]},
		stun.RawAttribute{Type: stun.AttrUseCandidate},
		stun.NewShortTermIntegrity(c.server), stun.Fingerprint,
	)
}

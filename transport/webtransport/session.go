package webtransport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/plexus-p2p/plexus/internal/addrport"
	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security"
	"github.com/plexus-p2p/plexus/security/noise"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/internal/quicmux"
)

// session is a connection, with the one session that it carries.
type session struct {
	*quicmux.Session
	conn      *quic.Conn
	connect   connect
	prefix    []byte        // of datagrams
	receiving chan struct{} // held by the one who waits for a datagram: http3 wakes but one

	id  peer.ID
	key peer.PubKey
}

// connect is the stream of the request.
type connect interface {
	io.Reader
	TryWriteAll([]byte) error
	Close() error
	ReceiveDatagram(context.Context) ([]byte, error)
}

var (
	_ transport.Session   = (*session)(nil)
	_ transport.Datagrams = (*session)(nil)
)

func (s *session) Peer() (peer.ID, peer.PubKey) { return s.id, s.key }

// newSession makes the session of the request on stream id.
func newSession(c *quic.Conn, con connect, id uint64, remote addr) *session {
	s := &session{
		conn: c, connect: con,
		// "the HTTP Datagram's Quarter Stream ID".
		// https://www.rfc-editor.org/rfc/rfc9297#section-2.1
		prefix:    quicvarint.Append(nil, id/4),
		receiving: make(chan struct{}, 1),
	}
	local := addrport.Of(c.LocalAddr())
	s.Session = quicmux.New(c, quicmux.Dialect{
		Prefix:  appendPrefix(nil, id),
		Parse:   func(b []byte) (int, error) { return parsePrefix(b, id) },
		Refused: errRejected,
		Code:    fromWire,
		Wire:    toWire,
		Bye:     s.bye,
	}, fixed(withHashes(local)), remote)
	return s
}

// bye tells the peer that the session ends, and waits until it hangs up.
func (s *session) bye(ctx context.Context, c muxer.Code) {
	if s.connect.TryWriteAll(appendClose(nil, c)) == nil && s.connect.Close() == nil {
		s.Settle(ctx)
	}
}

// watch waits until the peer ends the session, which the connection does not outlive.
func (s *session) watch() {
	code, err := readClose(s.connect)
	end := &muxer.SessionError{Code: code, Remote: true}
	var reset *quic.StreamError
	switch {
	case err == nil, errors.As(err, &reset):
	case errors.Is(err, muxer.ErrProtocol), errors.Is(err, io.ErrUnexpectedEOF):
		end.Remote, end.Err = false, fmt.Errorf("%w: %v", muxer.ErrProtocol, err)
	default:
		return // the connection has ended
	}
	s.End(end, uint64(errNo))
}

// uni passes the streams that go one way to http3, until one is that for control, which
// lasts as long as the connection. So it has but one goroutine for them. What comes
// after it stays unread: the few that a client may open, to instruct a dynamic table that
// we do not have.
func uni(c *quic.Conn, handle func(*quic.ReceiveStream)) {
	for {
		str, err := c.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		handle(str)
	}
}

// client runs the handshakes of a client.
func (t *Transport) client(ctx context.Context, c *quic.Conn, remote addr, hashes [][]byte, want peer.ID) (*session, error) {
	raw := (&http3.Transport{
		EnableDatagrams:        true,
		AdditionalSettings:     settings,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}).NewRawClientConn(c)
	go uni(c, raw.HandleUnidirectionalStream) // ends with the connection
	select {
	case <-raw.ReceivedSettings():
	case <-c.Context().Done():
		return nil, fmt.Errorf("%w: %v", ErrNoSession, context.Cause(c.Context()))
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	proto, err := protocolFor(raw.Settings())
	if err != nil {
		return nil, err
	}
	str, err := raw.OpenRequestStream(ctx)
	if err != nil {
		return nil, err
	}
	host := remote.at
	host = netip.AddrPortFrom(host.Addr().WithZone(""), host.Port())
	header := http.Header{"User-Agent": nil}
	if proto == protocolDraft {
		header.Set(headerDraft2, "1")
	}
	if err := str.SendRequestHeader(&http.Request{
		Method: http.MethodConnect,
		Proto:  proto,
		Host:   host.String(),
		URL:    &url.URL{Scheme: "https", Host: host.String(), Path: path, RawQuery: query},
		Header: header,
	}); err != nil {
		return nil, err
	}
	s := newSession(c, str, uint64(str.StreamID()), remote)

	// "clients […] MAY optimistically open […] streams": which is where Noise begins,
	// while the request is under way.
	// https://www.ietf.org/archive/id/draft-ietf-webtrans-http3-15.html#section-3.2
	granted := make(chan error, 1)
	go func() { // ends with the connection
		res, err := str.ReadResponse()
		if err == nil && res.StatusCode/100 != 2 {
			err = &StatusError{res.StatusCode}
		}
		granted <- err
		if err != nil {
			s.End(&muxer.SessionError{Remote: true, Err: err}, uint64(errNo))
			return
		}
		s.watch()
	}()
	st, err := s.Open(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.prove(ctx, t, st.(*quicmux.Stream), security.Handshake{Key: t.Key, Client: true, Want: want}, noise.Certs{
		Check: func(theirs [][]byte) error { return checkVouched(hashes, theirs) },
	}); err != nil {
		return nil, err
	}
	select {
	case err := <-granted:
		return s, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// prove runs Noise, which tells who the peer is.
func (s *session) prove(ctx context.Context, t *Transport, st *quicmux.Stream, h security.Handshake, certs noise.Certs) error {
	sc, err := t.noise.SecureCerts(ctx, st, h, certs)
	if err != nil {
		return err
	}
	s.id, s.key = sc.Peer, sc.Key
	st.Leave()
	return nil
}

// maxHeader is how long the header of a request or an answer may be.
const maxHeader = 8 << 10

// maxRequests is how many requests a client may make until one is for a session.
const maxRequests = 4

// server runs the handshakes of a server.
func (t *Transport) server(ctx context.Context, c *quic.Conn) (*session, error) {
	var s *session
	raw, err := (&http3.Server{
		EnableDatagrams:    true,
		AdditionalSettings: settings,
		MaxHeaderBytes:     maxHeader,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if status := refusal(r); status != 0 {
				w.WriteHeader(status)
				return
			}
			str := w.(http3.HTTPStreamer).HTTPStream() // answers with status 200
			s = newSession(c, str, uint64(str.StreamID()), fixed(withHashes(addrport.Of(c.RemoteAddr()))))
		}),
	}).NewRawServerConn(c)
	if err != nil {
		return nil, err
	}
	go uni(c, raw.HandleUnidirectionalStream) // ends with the connection
	for range maxRequests {
		// Streams come in the order of their numbers, whatever the network does, and no
		// stream of a session has a lower one than its request.
		str, err := c.AcceptStream(ctx)
		if err != nil {
			return nil, err
		}
		if raw.HandleRequestStream(str); s != nil {
			break
		}
	}
	if s == nil {
		return nil, errors.New("webtransport: too many requests, and none for a session")
	}
	go s.watch() // ends with the connection
	st, err := s.Accept(ctx)
	if err != nil {
		return nil, err
	}
	certs, err := t.certs.now()
	if err != nil {
		return nil, err
	}
	var hashes [][]byte
	for _, c := range certs {
		hashes = append(hashes, c.hash)
	}
	return s, s.prove(ctx, t, st, security.Handshake{Key: t.Key}, noise.Certs{Hashes: hashes})
}

// SendDatagram implements transport.Datagrams.
func (s *session) SendDatagram(b []byte) error {
	return s.Session.SendDatagram(append(s.prefix[:len(s.prefix):len(s.prefix)], b...))
}

// MaxDatagram implements transport.Datagrams.
func (s *session) MaxDatagram() int { return max(s.Session.MaxDatagram()-len(s.prefix), 0) }

// ReceiveDatagram implements transport.Datagrams.
func (s *session) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := s.conn.Context()
	defer context.AfterFunc(over, func() { cancel(context.Cause(over)) })()
	select {
	case s.receiving <- struct{}{}:
		defer func() { <-s.receiving }()
	case <-ctx.Done():
	}
	b, err := s.connect.ReceiveDatagram(ctx)
	if err != nil {
		return nil, s.Reason(ctx, err)
	}
	return b, nil
}

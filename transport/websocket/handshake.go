package websocket

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// maxHeader is how long a request or an answer may be, in bytes, without a body.
const maxHeader = 8 << 10

// ErrHandshake means that the other end does not speak WebSocket, or refuses to.
var ErrHandshake = errors.New("websocket: handshake failed")

func failed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrHandshake}, args...)...)
}

// accept is the answer to a key.
// https://www.rfc-editor.org/rfc/rfc6455#section-4.2.2
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// request asks for a WebSocket and reads the answer. What came after it is returned.
func request(c io.ReadWriter, a *address) (head []byte, err error) {
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	_, err = io.WriteString(c, "GET "+a.target()+" HTTP/1.1\r\nHost: "+a.host()+
		"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "+key+
		"\r\nSec-WebSocket-Version: 13\r\n\r\n")
	if err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: c, N: maxHeader}
	r := bufio.NewReader(limited)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
	if err != nil {
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			return nil, err
		}
		return nil, failed("no answer: %w", err)
	}
	h := resp.Header
	switch {
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return nil, failed("the answer is %q", resp.Status)
	case !has(h, "Upgrade", "websocket"), !has(h, "Connection", "upgrade"), h.Get("Sec-WebSocket-Accept") != accept(key):
		return nil, failed("the answer is to something else")
	case h.Get("Sec-WebSocket-Extensions") != "", h.Get("Sec-WebSocket-Protocol") != "":
		return nil, failed("the answer adds what was not asked for")
	}
	head = make([]byte, r.Buffered())
	io.ReadFull(r, head)
	return head, nil
}

// isRequest tells whether r asks for a WebSocket.
func isRequest(r *http.Request) bool {
	return r.Method == http.MethodGet && has(r.Header, "Upgrade", "websocket") && has(r.Header, "Connection", "upgrade")
}

// answer takes the connection of a request from the HTTP server and answers it. What came
// after the request is returned.
func answer(w http.ResponseWriter, r *http.Request) (head []byte, err error) {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	h, ok := w.(http.Hijacker)
	switch {
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		w.Header().Set("Sec-WebSocket-Version", "13")
		http.Error(w, "WebSocket version 13 is spoken here", http.StatusUpgradeRequired)
		return nil, failed("version %q", r.Header.Get("Sec-WebSocket-Version"))
	case err != nil || len(key) != 16:
		http.Error(w, "Sec-WebSocket-Key is not one", http.StatusBadRequest)
		return nil, failed("key %q", r.Header.Get("Sec-WebSocket-Key"))
	case !ok:
		http.Error(w, "HTTP/1.1 is spoken here", http.StatusHTTPVersionNotSupported)
		return nil, failed("%s", r.Proto)
	}
	c, rw, err := h.Hijack()
	if err != nil {
		return nil, failed("%w", err)
	}
	head = make([]byte, rw.Reader.Buffered())
	io.ReadFull(rw.Reader, head)
	// An empty send buffer has room for it, so this does not wait for the peer.
	_, err = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
		accept(r.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
	if err != nil {
		c.Close()
		return nil, failed("%w", err)
	}
	return head, nil
}

// has tells whether a header that is a list has a token.
func has(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

package private

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/multiformats/go-multihash"
	"github.com/pion/ice/v4"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/transport/internal/rtc"
)

// Types of messages on a signaling stream. Append only.
const (
	signalOffer = iota
	signalAnswer
	signalCandidate
)

// signaling is a stream with its messages.
//
//	message Message {
//	  optional Type type = 1;
//	  optional string data = 2;
//	}
type signaling struct {
	c  net.Conn
	mu sync.Mutex // held while a message is written
}

func (s *signaling) write(typ int, data string) error {
	b, at := pb.BeginDelimited(nil)
	b = pb.AppendUvarint(b, 1, uint64(typ))
	b = pb.AppendBytes(b, 2, data)
	b = pb.End(b, at)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.c.Write(b)
	return err
}

func (s *signaling) next() (typ int, data string, err error) {
	b, err := pb.ReadDelimited(s.c, maxSignal, nil)
	if err != nil {
		return 0, "", err
	}
	return parseSignal(b)
}

func parseSignal(b []byte) (typ int, data string, err error) {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			typ = int(min(d.Uvarint(), 1<<20))
		case 2:
			data = d.Text()
		}
	}
	if err := d.Err(); err != nil {
		return 0, "", fmt.Errorf("%w: %w", ErrSignaling, err)
	}
	return typ, data, nil
}

func (s *signaling) description(want int) (description, error) {
	typ, data, err := s.next()
	if err != nil {
		return description{}, err
	}
	if typ != want {
		return description{}, fmt.Errorf("%w: message %d, want %d", ErrSignaling, typ, want)
	}
	return parseDescription(data)
}

// candidateInit is a candidate as browsers write it.
type candidateInit struct {
	Candidate string  `json:"candidate"`
	Mid       *string `json:"sdpMid"`
	Line      *int    `json:"sdpMLineIndex"`
}

func (s *signaling) candidate(c ice.Candidate, mid string) error {
	zero := 0
	b, err := json.Marshal(candidateInit{"candidate:" + c.Marshal(), &mid, &zero})
	if err != nil {
		return err
	}
	return s.write(signalCandidate, string(b))
}

// read takes candidates until the stream ends, which means nothing: the peer has
// connected, or there are no more.
func (s *signaling) read(agent *ice.Agent) error {
	for range maxCandidates {
		typ, data, err := s.next()
		if err != nil {
			if errors.Is(err, ErrSignaling) {
				return err
			}
			return nil
		}
		if typ != signalCandidate {
			return fmt.Errorf("%w: message %d, want a candidate", ErrSignaling, typ)
		}
		c, err := parseCandidate(data)
		if err != nil {
			return err
		}
		if c != nil {
			agent.AddRemoteCandidate(c)
		}
	}
	return fmt.Errorf("%w: more than %d candidates", ErrSignaling, maxCandidates)
}

// parseCandidate returns nil for the end of candidates, and for those that we cannot use.
func parseCandidate(data string) (ice.Candidate, error) {
	var init *candidateInit
	if data == `""` {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(data), &init); err != nil {
		return nil, fmt.Errorf("%w: candidate: %v", ErrSignaling, err)
	}
	if init == nil || init.Candidate == "" {
		return nil, nil
	}
	c, err := ice.UnmarshalCandidate(init.Candidate)
	if err != nil || !c.NetworkType().IsUDP() {
		return nil, nil
	}
	return c, nil
}

// description is what we need of SDP.
//
// https://www.rfc-editor.org/rfc/rfc8841
type description struct {
	ufrag, pwd string
	print      []byte // multihash of the certificate
	setup, mid string
	bundle     bool
	candidates []ice.Candidate
}

func (d *description) String() string {
	var id [8]byte
	rand.Read(id[:])
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("v=0")
	line("o=- %d 2 IN IP4 127.0.0.1", uint64(id[0])<<40|uint64(id[1])<<32|uint64(id[2])<<24|uint64(id[3])<<16|1)
	line("s=-")
	line("t=0 0")
	if d.bundle || d.setup == "actpass" {
		line("a=group:BUNDLE %s", d.mid)
	}
	line("m=application 9 UDP/DTLS/SCTP webrtc-datachannel")
	line("c=IN IP4 0.0.0.0")
	line("a=mid:%s", d.mid)
	line("a=ice-ufrag:%s", d.ufrag)
	line("a=ice-pwd:%s", d.pwd)
	line("a=ice-options:trickle")
	hash := make([]string, 0, 32)
	for _, c := range d.print[2:] {
		hash = append(hash, fmt.Sprintf("%02X", c))
	}
	line("a=fingerprint:sha-256 %s", strings.Join(hash, ":"))
	line("a=setup:%s", d.setup)
	line("a=sctp-port:%d", sctpPort)
	line("a=max-message-size:%d", rtc.MaxMessage)
	return b.String()
}

const sctpPort = 5000

func parseDescription(s string) (d description, err error) {
	d.mid = "0"
	for l := range strings.Lines(s) {
		name, value, _ := strings.Cut(strings.TrimRight(l, "\r\n"), ":")
		switch name {
		case "a=ice-ufrag":
			d.ufrag = value
		case "a=ice-pwd":
			d.pwd = value
		case "a=setup":
			d.setup = value
		case "a=mid":
			d.mid = value
		case "a=group":
			d.bundle = true
		case "a=sctp-port":
			if n, err := strconv.Atoi(value); err != nil || n != sctpPort {
				return d, fmt.Errorf("%w: SCTP port %q", ErrSignaling, value)
			}
		case "a=fingerprint":
			hash, hexed, _ := strings.Cut(value, " ")
			sum, err := hex.DecodeString(strings.ReplaceAll(hexed, ":", ""))
			if strings.EqualFold(hash, "sha-256") && err == nil && len(sum) == 32 {
				d.print = append([]byte{multihash.SHA2_256, 32}, sum...)
			}
		case "a=candidate":
			if c, err := ice.UnmarshalCandidate(value); err == nil && c.NetworkType().IsUDP() && len(d.candidates) < maxCandidates {
				d.candidates = append(d.candidates, c)
			}
		}
	}
	switch {
	case !rtc.ICEChars(d.ufrag, 4, 256) || !rtc.ICEChars(d.pwd, 22, 256):
		err = fmt.Errorf("%w: ICE credentials", ErrSignaling)
	case d.print == nil:
		err = fmt.Errorf("%w: no fingerprint by SHA-256", ErrSignaling)
	case d.setup != "actpass" && d.setup != "active" && d.setup != "passive":
		err = fmt.Errorf("%w: setup %q", ErrSignaling, d.setup)
	case strings.ContainsAny(d.mid, " \r\n") || len(d.mid) > 64:
		err = fmt.Errorf("%w: mid", ErrSignaling)
	}
	return d, err
}

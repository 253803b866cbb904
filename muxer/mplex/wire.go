package mplex

import (
	"encoding/binary"
	"fmt"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/session"
)

// A message is a header and a body. Both ends number the streams that they open
// from 0, so the flag tells whose number it is:
//
//	header uvarint (stream ID << 3 │ flag) │ length uvarint │ body
//
// https://github.com/libp2p/specs/blob/master/mplex/README.md#message-format
//
// To the engine a stream's ID is that number << 1, plus 1 if we opened it.

// Flags. "Receiver" and "initiator" are roles of the sender. Append only.
const (
	newStream = iota
	messageReceiver
	messageInitiator
	closeReceiver
	closeInitiator
	resetReceiver
	resetInitiator
)

const (
	// "The maximum header length is 9 bytes (per the unsigned-varint spec)."
	maxVarint = 9

	// "up to 1MiB per message"
	maxBody = 1 << 20

	// What Append adds: the new stream, with its empty name, and a message's head.
	maxHead = maxVarint + 1 + 2*maxVarint

	maxID = (1<<60-1)<<1 | 1
)

// wire implements [session.Wire].
type wire struct{}

func (wire) Append(b []byte, f session.Frame) []byte {
	id := f.ID >> 1 << 3
	if f.Flags&session.Open != 0 {
		// "An empty string may also be used for the stream name"
		b = binary.AppendUvarint(b, id+newStream)
		b = append(b, 0)
	}
	if f.ID&1 != 0 {
		id++ // initiator is receiver + 1
	}
	switch {
	case f.Kind == session.Data && f.Body > 0:
		b = binary.AppendUvarint(b, id+messageReceiver)
		b = binary.AppendUvarint(b, uint64(f.Body))
	case f.Kind == session.Reset:
		b = binary.AppendUvarint(b, id+resetReceiver)
		b = append(b, 0)
	case f.Flags&session.Fin != 0:
		b = binary.AppendUvarint(b, id+closeReceiver)
		b = append(b, 0)
	}
	return b
}

func (wire) Parse(b []byte) (f session.Frame, n int, err error) {
	header, n, err := uvarint(b)
	if n == 0 {
		return f, 0, err
	}
	length, m, err := uvarint(b[n:])
	if m == 0 {
		return f, 0, err
	}
	if length > maxBody {
		return f, 0, fmt.Errorf("%w: mplex message of %d bytes", muxer.ErrProtocol, length)
	}
	flag := header & 7
	f.ID = header >> 3 << 1
	f.Body = int(length)
	if flag == messageReceiver || flag == closeReceiver || flag == resetReceiver {
		f.ID |= 1 // we opened it
	}
	switch flag {
	case newStream:
		// "Stream names are purely for debugging purposes and are not otherwise
		// considered by the protocol."
		f.Kind, f.Flags = session.Window, session.Open
	case messageReceiver, messageInitiator:
		f.Kind = session.Data
	case closeReceiver, closeInitiator:
		f.Kind, f.Flags = session.Window, session.Fin
		if length > 0 {
			err = fmt.Errorf("%w: mplex close with a body", muxer.ErrProtocol)
		}
	case resetReceiver, resetInitiator:
		f.Kind = session.Reset
	default:
		err = fmt.Errorf("%w: mplex flag %d", muxer.ErrProtocol, flag)
	}
	return f, n + m, err
}

// uvarint reads a number, and returns 0 as its length if b is too short.
func uvarint(b []byte) (uint64, int, error) {
	v, n := binary.Uvarint(b[:min(len(b), maxVarint)])
	if n < 0 || n == 0 && len(b) >= maxVarint {
		return 0, 0, fmt.Errorf("%w: mplex number of more than %d bytes", muxer.ErrProtocol, maxVarint)
	}
	return v, n, nil
}

package yamux

import (
	"encoding/binary"
	"fmt"

	"github.com/plexus-p2p/plexus/muxer"
	"github.com/plexus-p2p/plexus/muxer/session"
)

// A frame is a header, and for data frames a body:
//
//	version 1 │ type 1 │ flags 2 │ stream ID 4 │ length 4 │ body
//
// "All fields are encoded in network order (big endian)."
// https://github.com/libp2p/specs/blob/master/yamux/README.md#framing
const headLen = 12

// Types. Append only.
const (
	typeData   = 0 // length: bytes of the body
	typeWindow = 1 // length: how much the window grows; with RST, why
	typePing   = 2 // length: a value to be echoed
	typeGoAway = 3 // length: why
)

// Flags. Append only.
const (
	flagSYN = 1
	flagACK = 2
	flagFIN = 4
	flagRST = 8
)

// GoAway codes of yamux itself. Append only.
const (
	goAwayNormal   = 0
	goAwayProtocol = 1
	goAwayInternal = 2
)

// wire implements [session.Wire].
type wire struct{}

func (wire) Append(b []byte, f session.Frame) []byte {
	var typ byte
	var flags uint16
	id, length := uint32(f.ID), uint32(f.Value)
	switch f.Kind {
	case session.Data:
		typ, length = typeData, uint32(f.Body)
	case session.Window:
		typ = typeWindow
	case session.Reset:
		typ, flags = typeWindow, flagRST
	case session.Ping:
		typ, flags, id = typePing, flagSYN, 0
	case session.Pong:
		typ, flags, id = typePing, flagACK, 0
	case session.GoAway:
		typ, id = typeGoAway, 0
	default:
		return b
	}
	if f.Flags&session.Open != 0 {
		flags |= flagSYN
	}
	if f.Flags&session.Ack != 0 {
		flags |= flagACK
	}
	if f.Flags&session.Fin != 0 {
		flags |= flagFIN
	}
	b = append(b, 0, typ)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	return binary.BigEndian.AppendUint32(b, length)
}

func (wire) Parse(b []byte) (f session.Frame, n int, err error) {
	if len(b) < headLen {
		return f, 0, nil
	}
	flags := binary.BigEndian.Uint16(b[2:])
	f.ID = uint64(binary.BigEndian.Uint32(b[4:]))
	length := binary.BigEndian.Uint32(b[8:])
	if b[0] != 0 {
		return f, 0, fmt.Errorf("%w: yamux version %d", muxer.ErrProtocol, b[0])
	}
	switch b[1] {
	case typeData:
		f.Kind, f.Body = session.Data, int(length)
	case typeWindow:
		f.Kind, f.Value = session.Window, uint64(length)
	case typePing:
		// "Both Ping and Go Away messages should always use the 0 StreamID."
		// go-yamux does not insist, neither do we.
		f = session.Frame{Kind: session.Ping, Value: uint64(length)}
		if flags&flagACK != 0 {
			f.Kind = session.Pong
		}
		return f, headLen, nil
	case typeGoAway:
		return session.Frame{Kind: session.GoAway, Value: uint64(length)}, headLen, nil
	default:
		return f, 0, fmt.Errorf("%w: yamux frame of type %d", muxer.ErrProtocol, b[1])
	}
	// "Additionally, the 0 ID is reserved to represent the session."
	if f.ID == 0 {
		return f, 0, fmt.Errorf("%w: yamux stream 0", muxer.ErrProtocol)
	}
	if flags&flagRST != 0 {
		f.Kind = session.Reset
		return f, headLen, nil
	}
	if flags&flagSYN != 0 {
		f.Flags |= session.Open
	}
	if flags&flagACK != 0 {
		f.Flags |= session.Ack
	}
	if flags&flagFIN != 0 {
		f.Flags |= session.Fin
	}
	return f, headLen, nil
}

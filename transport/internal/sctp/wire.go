package sctp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Types of chunks.
//
// https://www.rfc-editor.org/rfc/rfc9260#section-3.2
const (
	chunkData             = 0
	chunkInit             = 1
	chunkInitAck          = 2
	chunkSack             = 3
	chunkHeartbeat        = 4
	chunkHeartbeatAck     = 5
	chunkAbort            = 6
	chunkShutdown         = 7
	chunkShutdownAck      = 8
	chunkError            = 9
	chunkCookieEcho       = 10
	chunkCookieAck        = 11
	chunkShutdownComplete = 14
	chunkReconfig         = 130 // https://www.rfc-editor.org/rfc/rfc6525#section-3.1
)

// Parameters of chunks.
const (
	paramStateCookie         = 7
	paramOutgoingReset       = 13
	paramReconfigResponse    = 16
	paramSupportedExtensions = 0x8008
)

const causeUserAbort = 12 // https://www.rfc-editor.org/rfc/rfc9260#section-3.3.10.12

// Flags of DATA.
const (
	flagEnd       = 1
	flagBegin     = 2
	flagImmediate = 8 // https://www.rfc-editor.org/rfc/rfc7053
)

const (
	headerSize     = 12 // of a packet: ports, verification tag, checksum
	dataHeaderSize = 16 // of a DATA chunk
	port           = 5000
)

// ErrMalformed means that a packet cannot be read. It is dropped.
var ErrMalformed = errors.New("sctp: malformed packet")

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the one of a packet, whose own field counts as zero.
func checksum(packet []byte) uint32 {
	sum := crc32.Update(0, castagnoli, packet[:8])
	sum = crc32.Update(sum, castagnoli, []byte{0, 0, 0, 0})
	return crc32.Update(sum, castagnoli, packet[12:])
}

// beginPacket appends the header of a packet; endPacket fills in the checksum.
//
//	 0                   1                   2                   3
//	|     Source Port Number        |     Destination Port Number   |
//	|                      Verification Tag                         |
//	|                           Checksum                            |
//
// https://www.rfc-editor.org/rfc/rfc9260#section-3.1
func beginPacket(b []byte, tag uint32) []byte {
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint32(b, tag)
	return append(b, 0, 0, 0, 0)
}

func endPacket(packet []byte) {
	binary.LittleEndian.PutUint32(packet[8:], checksum(packet))
}

// openPacket checks a packet and returns its tag and chunks.
func openPacket(packet []byte) (tag uint32, chunks []byte, err error) {
	if len(packet) < headerSize {
		return 0, nil, malformed("short")
	}
	if binary.LittleEndian.Uint32(packet[8:]) != checksum(packet) {
		return 0, nil, malformed("checksum")
	}
	return binary.BigEndian.Uint32(packet[4:]), packet[headerSize:], nil
}

// nextChunk takes the first chunk off b.
//
//	|   Chunk Type  |  Chunk Flags  |         Chunk Length          |
//	\                          Chunk Value                          \
func nextChunk(b []byte) (typ, flags byte, value, rest []byte, err error) {
	if len(b) < 4 {
		return 0, 0, nil, nil, malformed("chunk header")
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < 4 || n > len(b) {
		return 0, 0, nil, nil, malformed("chunk length")
	}
	return b[0], b[1], b[4:n], b[min(padded(n), len(b)):], nil
}

// nextParam takes the first parameter off b.
func nextParam(b []byte) (typ uint16, value, rest []byte, err error) {
	if len(b) < 4 {
		return 0, nil, nil, malformed("parameter header")
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < 4 || n > len(b) {
		return 0, nil, nil, malformed("parameter length")
	}
	return binary.BigEndian.Uint16(b), b[4:n], b[min(padded(n), len(b)):], nil
}

func padded(n int) int { return (n + 3) &^ 3 }

// appendChunk appends a chunk with its padding.
func appendChunk(b []byte, typ, flags byte, value []byte) []byte {
	b = append(b, typ, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(value)))
	return pad(append(b, value...), len(value))
}

func appendParam(b []byte, typ uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(value)))
	return pad(append(b, value...), len(value))
}

func pad(b []byte, n int) []byte { return append(b, make([]byte, padded(n)-n)...) }

// initValue is an INIT, or an INIT ACK.
//
//	|                         Initiate Tag                          |
//	|           Advertised Receiver Window Credit (a_rwnd)          |
//	|  Number of Outbound Streams   |  Number of Inbound Streams    |
//	|                          Initial TSN                          |
//	\              Optional/Variable-Length Parameters              \
//
// https://www.rfc-editor.org/rfc/rfc9260#section-3.3.2
type initValue struct {
	tag, window, tsn uint32
	out, in          uint16
	cookie           []byte // INIT ACK only
}

func (v *initValue) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, v.tag)
	b = binary.BigEndian.AppendUint32(b, v.window)
	b = binary.BigEndian.AppendUint16(b, v.out)
	b = binary.BigEndian.AppendUint16(b, v.in)
	b = binary.BigEndian.AppendUint32(b, v.tsn)
	b = appendParam(b, paramSupportedExtensions, []byte{chunkReconfig})
	if v.cookie != nil {
		b = appendParam(b, paramStateCookie, v.cookie)
	}
	return b
}

func parseInit(b []byte) (v initValue, err error) {
	if len(b) < 16 {
		return v, malformed("INIT")
	}
	v = initValue{
		tag: binary.BigEndian.Uint32(b), window: binary.BigEndian.Uint32(b[4:]),
		out: binary.BigEndian.Uint16(b[8:]), in: binary.BigEndian.Uint16(b[10:]),
		tsn: binary.BigEndian.Uint32(b[12:]),
	}
	if v.tag == 0 || v.out == 0 || v.in == 0 {
		return v, malformed("INIT with a zero")
	}
	for b = b[16:]; len(b) > 0; {
		typ, value, rest, err := nextParam(b)
		if err != nil {
			return v, err
		}
		if typ == paramStateCookie {
			v.cookie = value
		}
		b = rest
	}
	return v, nil
}

// dataValue is a DATA chunk.
//
//	|                              TSN                              |
//	|      Stream Identifier S      |   Stream Sequence Number n    |
//	|                  Payload Protocol Identifier                  |
//	\                 User Data (seq n of Stream S)                 \
//
// https://www.rfc-editor.org/rfc/rfc9260#section-3.3.1
type dataValue struct {
	flags       byte
	tsn         uint32
	stream, ssn uint16
	ppid        uint32
	data        []byte
}

func (v *dataValue) append(b []byte) []byte {
	b = append(b, chunkData, v.flags)
	b = binary.BigEndian.AppendUint16(b, uint16(dataHeaderSize+len(v.data)))
	b = binary.BigEndian.AppendUint32(b, v.tsn)
	b = binary.BigEndian.AppendUint16(b, v.stream)
	b = binary.BigEndian.AppendUint16(b, v.ssn)
	b = binary.BigEndian.AppendUint32(b, v.ppid)
	return pad(append(b, v.data...), len(v.data))
}

func parseData(flags byte, b []byte) (v dataValue, err error) {
	if len(b) <= 12 { // "No User Data" is an error, too
		return v, malformed("DATA")
	}
	return dataValue{
		flags: flags, tsn: binary.BigEndian.Uint32(b), stream: binary.BigEndian.Uint16(b[4:]),
		ssn: binary.BigEndian.Uint16(b[6:]), ppid: binary.BigEndian.Uint32(b[8:]), data: b[12:],
	}, nil
}

// span is a run of TSNs, both ends included.
type span struct{ first, last uint32 }

// sackValue is a SACK.
//
//	|                      Cumulative TSN Ack                       |
//	|          Advertised Receiver Window Credit (a_rwnd)           |
//	| Number of Gap Ack Blocks = N  |  Number of Duplicate TSNs = M |
//	|       Gap Ack Block #1 Start  |   Gap Ack Block #1 End        |
//
// https://www.rfc-editor.org/rfc/rfc9260#section-3.3.4
type sackValue struct {
	cum, window uint32
	blocks      []byte // of four bytes each
}

// appendSack appends a SACK chunk.
func appendSack(b []byte, cum, window uint32, gaps []span) []byte {
	b = append(b, chunkSack, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(16+4*len(gaps)))
	b = binary.BigEndian.AppendUint32(b, cum)
	b = binary.BigEndian.AppendUint32(b, window)
	b = binary.BigEndian.AppendUint16(b, uint16(len(gaps)))
	b = binary.BigEndian.AppendUint16(b, 0)
	for _, g := range gaps {
		b = binary.BigEndian.AppendUint16(b, uint16(g.first-cum))
		b = binary.BigEndian.AppendUint16(b, uint16(g.last-cum))
	}
	return b
}

func parseSack(b []byte) (v sackValue, err error) {
	if len(b) < 12 {
		return v, malformed("SACK")
	}
	n := 4 * int(binary.BigEndian.Uint16(b[8:]))
	if len(b) < 12+n {
		return v, malformed("SACK blocks")
	}
	return sackValue{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), b[12 : 12+n]}, nil
}

func (v *sackValue) block(i int) span {
	b := v.blocks[4*i:]
	return span{v.cum + uint32(binary.BigEndian.Uint16(b)), v.cum + uint32(binary.BigEndian.Uint16(b[2:]))}
}

// resetRequest is the parameter Outgoing SSN Reset Request.
//
//	|           Re-configuration Request Sequence Number            |
//	|           Re-configuration Response Sequence Number           |
//	|                Sender's Last Assigned TSN                     |
//	|  Stream Number 1 (optional)   |    Stream Number 2 (optional) |
//
// https://www.rfc-editor.org/rfc/rfc6525#section-4.1
type resetRequest struct {
	seq, response, last uint32
	streams             []uint16 // none: all
}

func (v *resetRequest) append(b []byte) []byte {
	value := binary.BigEndian.AppendUint32(nil, v.seq)
	value = binary.BigEndian.AppendUint32(value, v.response)
	value = binary.BigEndian.AppendUint32(value, v.last)
	for _, s := range v.streams {
		value = binary.BigEndian.AppendUint16(value, s)
	}
	return appendParam(b, paramOutgoingReset, value)
}

func parseReset(b []byte) (v resetRequest, err error) {
	if len(b) < 12 || len(b)%2 != 0 {
		return v, malformed("reset request")
	}
	v = resetRequest{seq: binary.BigEndian.Uint32(b), response: binary.BigEndian.Uint32(b[4:]), last: binary.BigEndian.Uint32(b[8:])}
	for b = b[12:]; len(b) > 0; b = b[2:] {
		v.streams = append(v.streams, binary.BigEndian.Uint16(b))
	}
	return v, nil
}

// Results of a request to re-configure. Append only.
//
// https://www.rfc-editor.org/rfc/rfc6525#section-4.4
const (
	resultPerformed  = 1
	resultDenied     = 2
	resultInProgress = 6
)

func appendResponse(b []byte, seq, result uint32) []byte {
	value := binary.BigEndian.AppendUint32(nil, seq)
	return appendParam(b, paramReconfigResponse, binary.BigEndian.AppendUint32(value, result))
}

// less compares TSNs, which wrap around.
//
// https://www.rfc-editor.org/rfc/rfc9260#section-1.6
func less(a, b uint32) bool { return int32(a-b) < 0 }

package fetch

import (
	"fmt"

	"github.com/plexus-p2p/plexus/internal/pb"
)

// status is a response's StatusCode. Append only: the numbers are on the wire.
type status uint64

const (
	statusOK       status = 0
	statusNotFound status = 1
	statusError    status = 2 // not in the spec; go and js send it
)

// A response is
//
//	message FetchResponse {
//		StatusCode status = 1;
//		bytes data = 2;
//	}
//
// https://github.com/libp2p/specs/blob/master/fetch/README.md#message-format
type response struct {
	status status
	data   []byte
}

// appendRequest appends FetchRequest{string identifier = 1}, with its length
// before it, to b.
func appendRequest(b []byte, key string) []byte {
	b, at := pb.BeginDelimited(b)
	if key != "" {
		b = pb.AppendBytes(b, 1, key)
	}
	return pb.End(b, at)
}

func parseRequest(b []byte) (key string, err error) {
	d := pb.Decode(b)
	for d.Next() {
		if d.Field() == 1 {
			key = d.Text()
		}
	}
	return key, d.Err()
}

// append appends r, with its length before it, to b.
func (r response) append(b []byte) []byte {
	b, at := pb.BeginDelimited(b)
	if r.status != statusOK {
		b = pb.AppendUvarint(b, 1, uint64(r.status))
	}
	if len(r.data) > 0 {
		b = pb.AppendBytes(b, 2, r.data)
	}
	return pb.End(b, at)
}

// parse reads r from b, of which r.data is a part.
func (r *response) parse(b []byte) error {
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			r.status = status(d.Uvarint())
		case 2:
			r.data = d.Bytes()
		}
	}
	return d.Err()
}

// err is what a response other than OK means.
func (s status) err() error {
	switch s {
	case statusOK:
		return nil
	case statusNotFound:
		return ErrNotFound
	case statusError:
		return ErrFailed
	}
	return fmt.Errorf("%w: status %d", ErrFailed, uint64(s))
}

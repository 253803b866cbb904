package muxertest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
)

// Records returns a connection that behaves as a secured one: each Write is cut
// in records of at most size bytes, and ReadRecord returns one of them where it lies.
func Records(c net.Conn, size int) net.Conn {
	return &records{Conn: c, size: size, buf: make([]byte, 2+size)}
}

type records struct {
	net.Conn
	size int

	wmu sync.Mutex

	rmu  sync.Mutex
	buf  []byte
	have int // bytes of a record in buf
	done int // bytes of buf, a whole record's, that were returned
}

func (r *records) Write(p []byte) (n int, err error) {
	r.wmu.Lock()
	defer r.wmu.Unlock()
	for n < len(p) {
		k := min(len(p)-n, r.size)
		b := binary.BigEndian.AppendUint16(nil, uint16(k))
		if _, err := r.Conn.Write(append(b, p[n:n+k]...)); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

func (r *records) ReadRecord() ([]byte, error) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if r.done > 0 {
		for i := range r.buf[:r.done] {
			r.buf[i] = 0xdb // the last record is not valid any more
		}
		r.have, r.done = 0, 0
	}
	for {
		want := 2
		if r.have >= 2 {
			if want += int(binary.BigEndian.Uint16(r.buf)); want == r.have {
				r.done = want
				return r.buf[2:want], nil
			}
		}
		n, err := r.Conn.Read(r.buf[r.have:want])
		r.have += n
		if errors.Is(err, io.EOF) && r.have > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && !(errors.Is(err, os.ErrDeadlineExceeded) && n > 0) {
			return nil, err
		}
	}
}

func (r *records) Read(p []byte) (int, error) { panic("ReadRecord is preferred") }

func (r *records) CloseWrite() error { return r.Conn.(interface{ CloseWrite() error }).CloseWrite() }

package gossip

import (
	"errors"
	"fmt"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/plexus-p2p/plexus/internal/pb"
	"github.com/plexus-p2p/plexus/peer"
)

// Bounds on messages.
const (
	maxBeacon  = 8 << 10  // bytes of a message of peer discovery
	maxNotice  = 32 << 10 // bytes of a message of Topic
	maxAddrs   = 64
	maxAddr    = 1 << 10 // bytes
	maxWant    = 64      // keys in a message
	maxHave    = 256
	maxKey     = 128 // bytes of a multihash
	noticeKeys = 200 // keys that are sent in a message: far from maxNotice
)

// A beacon says where its author is. It is
//
//	message Peer {
//		bytes publicKey = 1;
//		repeated bytes addrs = 2;
//	}
//
// https://github.com/libp2p/js-libp2p-pubsub-peer-discovery/blob/main/src/peer.proto
type beacon struct {
	key   peer.PubKey
	addrs []ma.Multiaddr
}

func (b beacon) append(buf []byte) []byte {
	buf = pb.AppendBytes(buf, 1, b.key.Bytes())
	for _, a := range b.addrs {
		buf = pb.AppendBytes(buf, 2, a.Bytes())
	}
	return buf
}

// parseBeacon reads a beacon. Addresses that this host cannot read are left out, and
// those beyond maxAddrs.
func parseBeacon(b []byte) (beacon, error) {
	if len(b) > maxBeacon {
		return beacon{}, fmt.Errorf("%d bytes, at most %d are taken", len(b), maxBeacon)
	}
	var r beacon
	var key []byte
	d := pb.Decode(b)
	for d.Next() {
		switch d.Field() {
		case 1:
			key = d.Bytes()
		case 2:
			raw := d.Bytes()
			if len(raw) > maxAddr || len(r.addrs) == maxAddrs {
				continue
			}
			if a, err := ma.NewMultiaddrBytes(raw); err == nil && len(a) > 0 {
				r.addrs = append(r.addrs, a)
			}
		}
	}
	if err := d.Err(); err != nil {
		return beacon{}, err
	}
	var err error
	r.key, err = peer.ParsePubKey(key)
	return r, err
}

// info is whom a beacon is about, and where it is.
func (b beacon) info() peer.AddrInfo {
	i := peer.AddrInfo{ID: b.key.ID()}
	for _, a := range b.addrs {
		if a, id := peer.SplitAddr(a); len(a) > 0 && (id == "" || id == i.ID) {
			i.Addrs = append(i.Addrs, a)
		}
	}
	return i
}

// A notice is what a host says in Topic:
//
//	message Notice {
//		repeated bytes want = 1;   // multihashes whose providers the author looks for
//		repeated bytes have = 2;   // multihashes that the author provides
//		repeated bytes gone = 3;   // multihashes that it no longer provides
//		bytes record = 4;          // the author's peer record, in its signed envelope
//		uint64 seq = 5;            // grows from one notice of an author to the next
//		uint64 expires = 6;        // until when have holds, in seconds since 1970
//	}
//
// Its author is that of the pubsub message, whose signature is over all of it.
type notice struct {
	want, have, gone []string // multihashes
	record           []byte
	seq, expires     uint64
}

func (n *notice) append(b []byte) []byte {
	for i, keys := range [][]string{n.want, n.have, n.gone} {
		for _, k := range keys {
			b = pb.AppendBytes(b, i+1, k)
		}
	}
	if len(n.record) > 0 {
		b = pb.AppendBytes(b, 4, n.record)
	}
	b = pb.AppendUvarint(b, 5, n.seq)
	if n.expires > 0 {
		b = pb.AppendUvarint(b, 6, n.expires)
	}
	return b
}

var (
	errTooMany = errors.New("too many keys")
	errKey     = errors.New("a key is no multihash")
)

func (n *notice) parse(b []byte) error {
	if len(b) > maxNotice {
		return fmt.Errorf("%d bytes, at most %d are taken", len(b), maxNotice)
	}
	d := pb.Decode(b)
	for d.Next() {
		switch f := d.Field(); f {
		case 1, 2, 3:
			list, most := &n.want, maxWant
			if f == 2 {
				list, most = &n.have, maxHave
			} else if f == 3 {
				list, most = &n.gone, maxHave
			}
			if len(*list) == most {
				return errTooMany
			}
			k := d.Bytes()
			if d.Err() == nil && checkKey(k) != nil {
				return errKey
			}
			*list = append(*list, string(k))
		case 4:
			n.record = d.Bytes()
		case 5:
			n.seq = d.Uvarint()
		case 6:
			n.expires = d.Uvarint()
		}
	}
	return d.Err()
}

// checkKey reports whether k is a multihash of a size that is passed on.
func checkKey(k []byte) error {
	if len(k) > maxKey {
		return fmt.Errorf("gossip: a multihash of %d bytes, at most %d are taken", len(k), maxKey)
	}
	if _, err := multihash.Cast(k); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	return nil
}

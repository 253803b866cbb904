package peer

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/internal/pb"
)

func mustAddr(t testing.TB, s string) ma.Multiaddr {
	t.Helper()
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRecordVectors(t *testing.T) {
	for _, kt := range keyTypes {
		v, k := readVector(t, kt.name), testKey(t, kt.name)
		want := Record{ID: k.ID()}
		want.Seq, _ = strconv.ParseUint(v.text("seq"), 10, 64)
		for _, s := range v["addr"] {
			want.Addrs = append(want.Addrs, mustAddr(t, s))
		}
		got, err := OpenRecord(v.bytes(t, "record-envelope"))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, %v, want %v", kt.name, got, err, want)
		}
		if got, want := want.append(nil), v.bytes(t, "record"); !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %x\nwant %x", kt.name, got, want)
		}
		b, err := want.Seal(k)
		if err != nil {
			t.Fatal(err)
		}
		if want := v.bytes(t, "record-envelope"); kt.typ != ECDSA && !bytes.Equal(b, want) {
			t.Errorf("%s:\n got %x\nwant %x", kt.name, b, want)
		}
	}
}

// sealRecord signs the message of a record, whatever it says.
func sealRecord(t *testing.T, k PrivKey, msg []byte) []byte {
	t.Helper()
	b, err := Seal(k, RecordDomain, RecordType, msg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// "The receiving peer MUST verify that the peer_id contained in the RoutingState
// matches the public_key from the envelope."
// https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md#certification--verification
func TestRecordSigner(t *testing.T) {
	k, other := testKey(t, "ed25519"), testKey(t, "secp256k1")
	r := Record{ID: other.ID(), Seq: 1}
	_, err := OpenRecord(sealRecord(t, k, r.append(nil)))
	wantErr(t, "of somebody else", err, ErrSigner)
	_, err = r.Seal(k)
	wantErr(t, "sealing for somebody else", err, ErrSigner)
	_, err = Record{}.Seal(k)
	wantErr(t, "sealing for nobody", err, ErrSigner)
	_, err = Record{}.Seal(PrivKey{})
	wantErr(t, "sealing for nobody without a key", err, ErrSigner)
}

func TestRecordMalformed(t *testing.T) {
	k := testKey(t, "ed25519")
	id := pb.AppendBytes(nil, 1, k.ID())
	for name, msg := range map[string][]byte{
		"ID is none":        pb.AppendBytes(nil, 1, "nobody"),
		"ID is empty":       pb.AppendBytes(nil, 1, ""),
		"cut off":           id[:len(id)-1],
		"seq is bytes":      pb.AppendBytes(slices.Clone(id), 2, "1"),
		"address is cut":    pb.AppendBytes(slices.Clone(id), 3, "\x0a\x05abc"),
		"address is number": pb.AppendBytes(slices.Clone(id), 3, "\x08\x05"),
	} {
		_, err := OpenRecord(sealRecord(t, k, msg))
		wantErr(t, name, err, ErrRecord)
	}
	_, err := OpenRecord(sealRecord(t, k, nil))
	wantErr(t, "no ID", err, ErrSigner)
	_, err = OpenRecord(readVector(t, "ed25519").bytes(t, "envelope"))
	wantErr(t, "no record", err, ErrEnvelope)
}

// Addresses that we cannot read are the sender's business, not a reason to lose the
// others.
func TestRecordSkipsAddrs(t *testing.T) {
	k := testKey(t, "ed25519")
	good := mustAddr(t, "/ip4/192.0.2.1/tcp/4001")
	msg := pb.AppendBytes(nil, 1, k.ID())
	for _, addr := range []string{
		"",                                  // empty, as js-libp2p's are
		"\x04\x7f\x00\x00",                  // cut off
		"\xff\xff\xff\x7f\x00",              // an unknown protocol
		strings.Repeat("\xcc\x03", maxAddr), // /quic/quic/quic… beyond the bound
		string(good.Bytes()),
	} {
		msg = pb.AppendBytes(msg, 3, pb.AppendBytes(nil, 1, addr))
	}
	msg = pb.AppendBytes(msg, 3, "") // an AddressInfo without an address
	r, err := OpenRecord(sealRecord(t, k, msg))
	if err != nil || len(r.Addrs) != 1 || !r.Addrs[0].Equal(good) {
		t.Errorf("got %v, %v", r, err)
	}
	// And ours say nothing of empty ones.
	b, err := Record{ID: k.ID(), Addrs: []ma.Multiaddr{nil, good, {}}}.Seal(k)
	if err != nil {
		t.Fatal(err)
	}
	want := sealRecord(t, k, (&Record{ID: k.ID(), Addrs: []ma.Multiaddr{good}}).append(nil))
	if !bytes.Equal(b, want) {
		t.Errorf("got %x, want %x", b, want)
	}
}

func TestRecordBounds(t *testing.T) {
	k := testKey(t, "ed25519")
	r := Record{ID: k.ID()}
	for i := range MaxRecordAddrs {
		r.Addrs = append(r.Addrs, mustAddr(t, fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", i+1)))
	}
	b, err := r.Seal(k)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenRecord(b); err != nil || len(got.Addrs) != MaxRecordAddrs {
		t.Errorf("%d addresses, %v", len(got.Addrs), err)
	}
	full := r
	full.Addrs = append(full.Addrs, mustAddr(t, "/ip4/192.0.2.1/tcp/99"))
	_, err = full.Seal(k)
	wantErr(t, "sealing one more", err, ErrRecord)
	got, err := OpenRecord(sealRecord(t, k, full.append(nil)))
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("opening one more: %d addresses, %v", len(got.Addrs), err)
	}

	long := Record{ID: k.ID()}
	for range 40 {
		long.Addrs = append(long.Addrs, mustAddr(t, "/dns4/"+strings.Repeat("a", 250)+"/tcp/1"))
	}
	_, err = long.Seal(k)
	wantErr(t, "sealing too long ones", err, ErrEnvelope)
}

// "Newer records MUST have a higher seq value than older records."
// https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md#address-record-format
func TestSequence(t *testing.T) {
	var s Sequence
	now := time.Unix(1700000000, 5)
	for i, tt := range []struct {
		now  time.Time
		want uint64
	}{
		{now, 1700000000000000005},
		{now, 1700000000000000006},
		{now.Add(-time.Hour), 1700000000000000007},
		{time.Time{}, 1700000000000000008},
		{now.Add(time.Second), 1700000001000000005},
	} {
		if got := s.Next(tt.now); got != tt.want {
			t.Errorf("%d: got %d, want %d", i, got, tt.want)
		}
	}
	var early Sequence
	if got := early.Next(time.Unix(-5, 0)); got != 1 {
		t.Errorf("before 1970: got %d", got)
	}

	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[uint64]bool{}
	for range 8 {
		wg.Go(func() {
			for range 100 {
				n := s.Next(now)
				mu.Lock()
				if seen[n] {
					t.Errorf("%d came twice", n)
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func FuzzRecord(f *testing.F) {
	for _, kt := range keyTypes {
		f.Add(readVector(f, kt.name).bytes(f, "record"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if r.parse(b) != nil || r.ID == "" {
			return
		}
		if len(r.Addrs) > MaxRecordAddrs {
			t.Fatalf("%d addresses", len(r.Addrs))
		}
		var again Record
		if err := again.parse(r.append(nil)); err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%v became %v, %v", r, again, err)
		}
	})
}

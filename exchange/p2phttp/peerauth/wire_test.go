package peerauth

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/plexus-p2p/plexus/peer"
)

// unhex reads bytes, or panics.
func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// TestSigned: the example of the spec.
// https://github.com/libp2p/specs/blob/master/http/peer-id-auth.md#signing-example
func TestSigned(t *testing.T) {
	got := signedByServer("ERERERERERERERERERERERERERERERERERERERERERE=",
		unhex("080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"), "example.com")
	want := "6c69627032702d5065657249443d6368616c6c656e67652d7365727665723d455245524552455245524552455245524552455245524552455245524552455245524552455245524552453d36636c69656e742d7075626c69632d6b65793d080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b39414686f73746e616d653d6578616d706c652e636f6d"
	if hex.EncodeToString(got) != want {
		t.Errorf("signed:\n%x\nwant\n%s", got, want)
	}
	key, err := peer.ParsePrivKey(unhex("0801124001010101010101010101010101010101010101010101010101010101010101018a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := key.Sign(got)
	if want := "UA88qZbLUzmAxrD9KECbDCgSKAUBAvBHrOCF2X0uPLR1uUCF7qGfLPc7dw3Olo-LaFCDpk5sXN7TkLWPVvuXAA=="; base64url(sig) != want || err != nil {
		t.Errorf("signature %s, %v; want %s", base64url(sig), err, want)
	}
}

func TestParse(t *testing.T) {
	long := Scheme + ` opaque="` + strings.Repeat("a", MaxHeader-len(Scheme)-len(` opaque=""`)) + `"`
	for _, tt := range []struct {
		name, header string
		want         params
		found        bool
		err          error
	}{
		{"nothing", "", params{}, false, nil},
		{"beyond ASCII in another scheme", `Basic realm="ä", libp2p-PeerID sig="a"`, params{sig: "a"}, true, nil},
		{"another scheme", `Basic realm="libp2p-PeerID sig=\"x\""`, params{}, false, nil},
		{"bare", Scheme, params{}, true, nil},
		{"one", `libp2p-PeerID bearer="abc="`, params{bearer: "abc="}, true, nil},
		{"in another case", `LIBP2P-peerid Bearer="abc"`, params{bearer: "abc"}, true, nil},
		{"two", `libp2p-PeerID opaque="a", sig="b"`, params{opaque: "a", sig: "b"}, true, nil},
		// As the spec writes Authentication-Info.
		{"without commas", `libp2p-PeerID sig="a" bearer="b" expires="2030-01-01T00:00:00Z"`,
			params{sig: "a", bearer: "b", expires: "2030-01-01T00:00:00Z"}, true, nil},
		{"without quotes", `libp2p-PeerID sig=a==,bearer=b`, params{sig: "a==", bearer: "b"}, true, nil},
		{"with spaces", "libp2p-PeerID sig = \"a\"\t,,  bearer=\"b\" ,", params{sig: "a", bearer: "b"}, true, nil},
		{"escaped", `libp2p-PeerID challenge-client="a\"b\\c, d=e"`, params{challengeClient: `a"b\c, d=e`}, true, nil},
		{"unknown parameter", `libp2p-PeerID mood="good", sig="a"`, params{sig: "a"}, true, nil},
		{"between others", `Basic realm="x", libp2p-PeerID sig="a", Negotiate YII+/==, sig="z"`, params{sig: "a"}, true, nil},
		{"empty value", `libp2p-PeerID sig=""`, params{}, true, nil},
		{"as long as can be", long, params{opaque: long[len(Scheme)+9 : len(long)-1]}, true, nil},

		{"too long", long + " ", params{}, false, ErrTooLong},
		{"a parameter twice", `libp2p-PeerID sig="a", sig="b"`, params{}, false, ErrHeader},
		{"the scheme twice", `libp2p-PeerID sig="a", libp2p-PeerID bearer="b"`, params{}, false, ErrHeader},
		{"open quote", `libp2p-PeerID sig="a`, params{}, false, ErrHeader},
		{"open quote after a backslash", `libp2p-PeerID sig="a\`, params{}, false, ErrHeader},
		{"no name", `libp2p-PeerID sig="a", ="b"`, params{}, false, ErrHeader},
		{"a value alone", `libp2p-PeerID "a"`, params{}, false, ErrHeader},
		{"control character", "libp2p-PeerID sig=\"a\x01\"", params{}, false, ErrHeader},
		{"escaped control character", "libp2p-PeerID sig=\"a\\\n\"", params{}, false, ErrHeader},
		{"beyond ASCII without quotes", "libp2p-PeerID sig=\xb5", params{}, false, ErrHeader},
		{"beyond ASCII", `libp2p-PeerID sig="ä"`, params{}, false, ErrHeader},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, found, err := parse(tt.header)
			if got != tt.want || found != tt.found || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Errorf("parse = %+v, %v, %v; want %+v, %v, %v", got, found, err, tt.want, tt.found, tt.err)
			}
		})
	}
}

// TestHeaderTooLong: what nobody would take is not made.
func TestHeaderTooLong(t *testing.T) {
	fits := strings.Repeat("a", MaxHeader-len(Scheme)-len(` opaque=""`))
	if h, err := header(paramOpaque, fits); err != nil || len(h) != MaxHeader {
		t.Errorf("header of %d bytes, %v; want %d", len(h), err, MaxHeader)
	}
	if h, err := header(paramOpaque, fits+"a"); !errors.Is(err, ErrTooLong) {
		t.Errorf("header of %d bytes, %v; want ErrTooLong", len(h), err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`libp2p-PeerID challenge-client="ERER=", public-key="CAES", sig="HQ==", opaque="1J"`)
	f.Add(`Basic realm="x\"", libp2p-PeerID sig = a bearer="b", Negotiate YII==`)
	f.Fuzz(func(t *testing.T, s string) {
		p, found, err := parse(s)
		if err != nil {
			if !errors.Is(err, ErrHeader) && !errors.Is(err, ErrTooLong) || found || p != (params{}) {
				t.Fatalf("%q: %+v, %v, %v", s, p, found, err)
			}
			return
		}
		if !found {
			if p != (params{}) {
				t.Fatalf("%q: %+v without the scheme", s, p)
			}
			return
		}
		pairs := []string{
			paramChallengeClient, p.challengeClient, paramChallengeServer, p.challengeServer,
			paramPublicKey, p.publicKey, paramSig, p.sig,
			paramOpaque, p.opaque, paramBearer, p.bearer, paramExpires, p.expires,
		}
		h, err := header(pairs...)
		if errors.Is(err, ErrTooLong) {
			return // it has quotes now
		}
		again, found, err2 := parse(h)
		if err != nil || err2 != nil || !found || again != p {
			t.Fatalf("%q: %+v is %q, which is %+v, %v, %v", s, p, h, again, found, err2)
		}
	})
}

// FuzzOpen: what a client returns opens only if we have made it.
func FuzzOpen(f *testing.F) {
	secret := make([]byte, 32)
	ours, err := state{Hostname: "example.com", Challenge: "x"}.seal(secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ours)
	f.Add(strings.TrimRight(ours, "="))
	f.Fuzz(func(t *testing.T, s string) {
		st, err := open(s, secret, state{}.Created, 1)
		if err != nil {
			if !errors.Is(err, ErrForged) && !errors.Is(err, ErrExpired) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if st.Hostname != "example.com" || st.Challenge != "x" || !strings.HasPrefix(s, strings.TrimRight(ours, "=")) {
			t.Fatalf("%q opens: %+v", s, st)
		}
	})
}

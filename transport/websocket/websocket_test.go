package websocket

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/simnet"
	"github.com/plexus-p2p/plexus/transport"
	"github.com/plexus-p2p/plexus/transport/tcp"
	"github.com/plexus-p2p/plexus/transport/transporttest"
)

var foreign = []ma.Multiaddr{
	ma.StringCast("/ip4/127.0.0.1/tcp/1"),
	ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1"),
	ma.StringCast("/ip4/127.0.0.1/tcp/1/tls"),
	ma.StringCast("/dns/localhost/tcp/1/ws"),
}

// certificate returns the two ends' configurations of TLS, for these names.
func certificate(t testing.TB, ips []string, names ...string) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), // bubbles live in 2000
	}
	for _, ip := range ips {
		c.IPAddresses = append(c.IPAddresses, net.ParseIP(ip))
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool}
}

func TestPipes(t *testing.T) {
	for _, at := range []string{"/ip4/127.0.0.1/tcp/%d/ws", "/ip6/::1/tcp/%d/ws", "/ip6/::1/tcp/%d/tls/ws", "/ip4/127.0.0.1/tcp/%d/tls/sni/localhost/ws/http-path/a%%2Fb%%20c"} {
		t.Run("System"+strings.ReplaceAll(at, "/tcp/%d", ""), func(t *testing.T) {
			server, client := certificate(t, []string{"127.0.0.1", "::1"}, "localhost")
			transporttest.TestPipes(t, transporttest.Pipes{
				New: func(t testing.TB) (transport.Pipes, transport.Pipes) {
					tr := func() *Transport { return &Transport{TLSConfig: server, TLSClientConfig: client} }
					return tr(), tr()
				},
				Listen:  ma.StringCast(fmt.Sprintf(at, 0)),
				Refused: ma.StringCast(fmt.Sprintf(at, 1)),
				Foreign: foreign,
			})
		})
	}
	for _, suffix := range []string{"/ws", "/tls/sni/localhost/ws/http-path/a%2Fb%20c"} {
		t.Run("simnet"+suffix, func(t *testing.T) {
			transporttest.TestPipes(t, transporttest.Pipes{
				New: func(t testing.TB) (transport.Pipes, transport.Pipes) {
					server, client := certificate(t, []string{"10.0.0.2"}, "localhost")
					n := simnet.New(simnet.Config{Path: simnet.Link{Latency: time.Millisecond}})
					t.Cleanup(n.Close)
					tr := func(ip string) *Transport {
						return &Transport{TCP: &tcp.Transport{Network: n.Host(ip)}, TLSConfig: server, TLSClientConfig: client}
					}
					return tr("10.0.0.1"), tr("10.0.0.2")
				},
				Listen:  ma.StringCast("/ip4/10.0.0.2/tcp/0" + suffix),
				Refused: ma.StringCast("/ip4/10.0.0.2/tcp/1" + suffix),
				Silent:  ma.StringCast("/ip4/10.0.0.3/tcp/1" + suffix),
				Foreign: foreign,
				Bubble:  true,
			})
		})
	}
}

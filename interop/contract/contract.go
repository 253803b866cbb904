// Package contract is the process contract of the interop peers, spoken in Go.
//
// A peer is a program with three verbs; README.md of this module has them in full:
//
//	PEER features
//	PEER listen --transport T --listen ADDR --security S --muxer M --cert FILE
//	PEER dial --transport T --to ADDR --security S --muxer M --cert FILE --checks connect,identify,…
//
// peers/go and peers/plexus bring a Stack each and share what is here: the
// flags and JSON lines (contract.go), the protocols that a listener serves
// (serve.go) and the checks that a dialer runs (checks.go). The peers in
// JavaScript, Rust and Python say the same in their own words.
package contract

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// The protocols of the contract. The first five are ours and exist in these
// peers only.
const (
	Echo       = "/interop/echo/1.0.0"       // answers each byte with itself, closes at EOF
	HalfClose  = "/interop/halfclose/1.0.0"  // reads to EOF, answers the SHA-256 of it, closes
	Reset      = "/interop/reset/1.0.0"      // reads one byte, resets
	ResetMe    = "/interop/resetme/1.0.0"    // echoes one byte, then expects to be reset, and counts it
	ResetCount = "/interop/resetcount/1.0.0" // answers that count in decimal, closes
	Perf       = "/perf/1.0.0"
)

// Wire says what a name on the command line is on the wire.
var Wire = map[string]string{
	"noise": "/noise", "tls": "/tls/1.0.0", "plaintext": "/plaintext/2.0.0",
	"yamux": "/yamux/1.0.0", "mplex": "/mplex/6.7.0",
	Own: "",
}

// Own stands for the security and the muxer of a transport that brings its own.
const Own = "-"

// ListenOn has the address to listen on for each transport.
var ListenOn = map[string]string{
	"tcp":           "/ip4/127.0.0.1/tcp/0",
	"ws":            "/ip4/127.0.0.1/tcp/0/ws",
	"wss":           "/ip4/127.0.0.1/tcp/0/tls/ws",
	"quic":          "/ip4/127.0.0.1/udp/0/quic-v1",
	"webtransport":  "/ip4/127.0.0.1/udp/0/quic-v1/webtransport",
	"webrtc-direct": "/ip4/127.0.0.1/udp/0/webrtc-direct",
}

// Offer is what a host offers: exactly one transport, security and muxer.
type Offer struct {
	Transport, Security, Muxer string

	// Cert is a PEM file with the certificate of 127.0.0.1 and its key, for wss.
	Cert string
}

func (o Offer) String() string {
	if o.Security == Own {
		return o.Transport
	}
	return o.Transport + "-" + o.Security + "-" + o.Muxer
}

// TLS is the configuration of both ends of wss: with the certificate, and trust in it.
func (o Offer) TLS() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(o.Cert, o.Cert)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots}, nil
}

// Features is the answer of PEER features: what the stack really has.
type Features struct {
	Name      string   `json:"name"`
	Version   string   `json:"version"`
	Transport []string `json:"transport"`
	Security  []string `json:"security"`
	Muxer     []string `json:"muxer"`
}

// Result is the line that a dialer prints for each check.
type Result struct {
	Check  string  `json:"check"`
	OK     bool    `json:"ok"`
	Detail string  `json:"detail"`
	MS     float64 `json:"ms"`
}

// Identity is what the identify protocol told about the other side.
type Identity struct {
	Agent     string
	Protocols []string
	Observed  string // our own address, as the other side sees it
	Peer      string // the peer ID that its public key hashes to
}

// A Stack is a libp2p implementation in Go.
type Stack interface {
	Features() Features

	// Listen serves handlers, and ping and identify beside them, until ctx
	// ends. It returns the full address, with /p2p/.
	Listen(ctx context.Context, on string, o Offer, handlers map[string]Handler) (string, error)

	// Dial makes a new host and a connection from it.
	Dial(ctx context.Context, to string, o Offer) (Conn, error)

	// IsReset tells a stream that the other side reset from a clean end, from
	// a deadline, and from a lost connection.
	IsReset(error) bool
}

// A Handler serves one inbound stream. It closes or resets it by itself.
type Handler func(Stream)

// Conn is one connection and the host that dialed it; Close closes both.
type Conn interface {
	Used() (security, muxer string) // protocol IDs; "" where the transport brings its own
	Identify(context.Context) (Identity, error)
	Ping(ctx context.Context, n int) ([]time.Duration, error)
	Open(ctx context.Context, protocol string) (Stream, error)
	Close() error
}

// Stream is what go-libp2p and plexus have in common.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
	Reset() error
	SetDeadline(time.Time) error
}

// Main runs a peer program.
func Main(s Stack) {
	if err := run(s, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(s Stack, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: PEER features|listen|dial [flags]")
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	var o Offer
	flags.StringVar(&o.Transport, "transport", "tcp", "tcp, ws, wss, quic, webtransport or webrtc-direct")
	flags.StringVar(&o.Security, "security", "noise", "noise, tls, plaintext or -")
	flags.StringVar(&o.Muxer, "muxer", "yamux", "yamux, mplex or -")
	flags.StringVar(&o.Cert, "cert", "", "PEM file with the certificate of wss and its key")
	listen := flags.String("listen", ListenOn["tcp"], "address to listen on")
	to := flags.String("to", "", "full address to dial")
	checks := flags.String("checks", strings.Join(Checks, ","), "checks to run, in this order")
	flags.Parse(args[1:])
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	switch args[0] {
	case "features":
		return printLine(s.Features())
	case "listen":
		addr, err := s.Listen(ctx, *listen, o, handlers(s))
		if err != nil {
			return err
		}
		if err := printLine(struct {
			Addr string `json:"addr"`
		}{addr}); err != nil {
			return err
		}
		// Whoever started us holds the other end of stdin: when it goes, we go.
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	case "dial":
		d := dialer{stack: s, to: *to, offer: o}
		ok := true
		for _, name := range strings.Split(*checks, ",") {
			r := d.run(ctx, name)
			ok = ok && r.OK
			if err := printLine(r); err != nil {
				return err
			}
		}
		if d.conn != nil {
			d.conn.Close()
		}
		if !ok {
			return fmt.Errorf("some checks failed")
		}
		return nil
	}
	return fmt.Errorf("unknown verb %q", args[0])
}

func printLine(v any) error {
	return json.NewEncoder(os.Stdout).Encode(v)
}

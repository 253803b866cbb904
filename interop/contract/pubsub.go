package contract

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// The second contract is that of a pubsub peer, a node in a small network:
//
//	PEER --router floodsub|gossipsub --sign yes|no [--partial yes]
//
// It prints a Hello when it is ready, and then a line for each line of its standard
// input, at whose end it exits. Commands are {"dial":ADDR}, {"publish":{…}},
// {"parts":[…]} and {"report":true}; each is answered when it is done.

// Hello is what a pubsub peer begins with.
type Hello struct {
	Addr      string   `json:"addr"`
	Name      string   `json:"name"`
	Version   string   `json:"version"`
	Protocols []string `json:"protocols"` // of the router, the preferred one first
}

// Command is a line that a pubsub peer reads: one of its fields is set.
type Command struct {
	Dial    string   `json:"dial,omitempty"`
	Publish *Publish `json:"publish,omitempty"`
	Parts   []int    `json:"parts,omitempty"` // parts of the message of PartGroup that it has
	Report  bool     `json:"report,omitempty"`
}

// Publish asks for Count messages of Size bytes, one each Gap milliseconds.
//
// A message begins with From and a number that counts up from 0, as big-endian uint32s.
// All other bytes are the low byte of 7·From+number.
type Publish struct {
	From  uint32  `json:"from"`
	Count uint32  `json:"count"`
	Size  int     `json:"size"`
	Gap   float64 `json:"gap"`
}

// Report is what a pubsub peer has seen. It answers all commands; after one that
// failed only Err is set.
type Report struct {
	Peers int            `json:"peers"` // neighbours that are subscribed
	Mesh  int            `json:"mesh"`  // those in the mesh of gossipsub, of both topics where it is in both; in floodsub all
	Got   map[uint32]int `json:"got"`   // different messages by From, its own not counted
	Again int            `json:"again"` // messages that were delivered before
	Bad   int            `json:"bad"`   // messages that are not what Publish says

	// DontWant is how many IDs of IDONTWANT neighbours have sent; -1: the stack does not tell.
	DontWant int `json:"dontwant"`

	Parts []int  `json:"parts,omitempty"` // of the message of PartGroup, those that it has
	Err   string `json:"err,omitempty"`
}

const (
	// Topic is where all that is published goes, PartialTopic where parts go.
	Topic        = "interop"
	PartialTopic = "interop-parts"
	PartGroup    = "group"
	PartCount    = 8
	PartSize     = 1000
)

// A PubSubNode is a node of a libp2p implementation in Go.
type PubSubNode interface {
	// Start makes the node and subscribes it. It calls got for every message of Topic
	// from others, gotPart for every part of
	// PartGroup, and with -1 if a neighbour has told what it has.
	Start(ctx context.Context, router string, sign, partial bool, got func(data []byte), gotPart func(i int)) (Hello, error)
	Dial(ctx context.Context, addr string) error
	Publish(ctx context.Context, data []byte) error
	Peers() (subscribed, mesh int)
	DontWant() int

	// PublishParts offers parts to the neighbours, and sends those that they lack.
	PublishParts(have []int) error
}

// A counter counts messages.
type counter struct {
	mu    sync.Mutex
	seen  map[[2]uint32]bool
	parts map[int]bool
	r     Report
}

func (c *counter) got(data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(data) < 8 {
		c.r.Bad++
		return
	}
	from, n := binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:])
	for _, b := range data[8:] {
		if b != byte(7*from+n) {
			c.r.Bad++
			return
		}
	}
	if c.seen[[2]uint32{from, n}] {
		c.r.Again++
		return
	}
	c.seen[[2]uint32{from, n}] = true
	c.r.Got[from]++
}

func payload(from, n uint32, size int) []byte {
	b := make([]byte, max(size, 8))
	for i := range b {
		b[i] = byte(7*from + n)
	}
	binary.BigEndian.PutUint32(b, from)
	binary.BigEndian.PutUint32(b[4:], n)
	return b
}

// PubSubMain runs a pubsub peer.
func PubSubMain(node PubSubNode) {
	router := flag.String("router", "gossipsub", "floodsub or gossipsub")
	sign := flag.String("sign", "yes", "StrictSign rather than StrictNoSign")
	partial := flag.String("partial", "no", "take part in PartialTopic")
	flag.Parse()
	if err := pubsubNode(node, *router, *sign == "yes", *partial == "yes"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func pubsubNode(node PubSubNode, router string, sign, partial bool) error {
	ctx := context.Background()
	c := counter{seen: make(map[[2]uint32]bool), parts: make(map[int]bool), r: Report{Got: make(map[uint32]int)}}
	changed := make(chan struct{}, 1) // what parts there are
	hello, err := node.Start(ctx, router, sign, partial, c.got, func(i int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if i >= 0 {
			c.parts[i] = true
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	go func() { // ends with the process
		for range changed {
			if err := node.PublishParts(c.report(node).Parts); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}()
	if err := printLine(hello); err != nil {
		return err
	}
	in := json.NewDecoder(os.Stdin)
	for {
		var cmd Command
		if err := in.Decode(&cmd); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		err := c.carryOut(ctx, node, cmd)
		r := c.report(node)
		if err != nil {
			r = Report{Err: err.Error()}
		}
		if err := printLine(r); err != nil {
			return err
		}
	}
}

func (c *counter) carryOut(ctx context.Context, node PubSubNode, cmd Command) error {
	switch {
	case cmd.Dial != "":
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return node.Dial(ctx, cmd.Dial)
	case cmd.Publish != nil:
		p := cmd.Publish
		begin := time.Now()
		for n := range p.Count {
			time.Sleep(time.Until(begin.Add(time.Duration(float64(n) * p.Gap * float64(time.Millisecond)))))
			if err := node.Publish(ctx, payload(p.From, n, p.Size)); err != nil {
				return err
			}
		}
	case cmd.Parts != nil:
		c.mu.Lock()
		for _, i := range cmd.Parts {
			c.parts[i] = true
		}
		c.mu.Unlock()
		return node.PublishParts(cmd.Parts)
	}
	return nil
}

func (c *counter) report(node PubSubNode) Report {
	peers, mesh := node.Peers()
	dontWant := node.DontWant()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.r
	r.Peers, r.Mesh, r.DontWant = peers, mesh, dontWant
	r.Got = make(map[uint32]int)
	for from, n := range c.r.Got {
		r.Got[from] = n
	}
	for i := range PartCount {
		if c.parts[i] {
			r.Parts = append(r.Parts, i)
		}
	}
	return r
}

// Parts are encoded as their numbers and bytes: a number, and PartSize bytes of that value.

// EncodeParts encodes those of have that are not in without, nil if there are none.
func EncodeParts(have []int, without byte) (b []byte) {
	for _, i := range have {
		if without&(1<<i) == 0 {
			for range 1 + PartSize {
				b = append(b, byte(i))
			}
		}
	}
	return b
}

// DecodeParts calls part for each part in b. It returns false if b is not what EncodeParts makes.
func DecodeParts(b []byte, part func(i int)) bool {
	for ; len(b) > PartSize; b = b[1+PartSize:] {
		for _, x := range b[:1+PartSize] {
			if x != b[0] || x >= PartCount {
				return false
			}
		}
		part(int(b[0]))
	}
	return len(b) == 0
}

// PartsMetadata is a byte with a bit for each part.
func PartsMetadata(have []int) (m byte) {
	for _, i := range have {
		m |= 1 << i
	}
	return m
}

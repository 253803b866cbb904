package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/pubsub"
	"github.com/plexus-p2p/plexus/pubsub/gossipsub"
	"github.com/plexus-p2p/plexus/routing/gossip"
)

// universal is the chat that universal-connectivity's programs in Go, JavaScript, Rust
// and Nim share: a message is its text in UTF-8, signed.
//
// https://github.com/libp2p/universal-connectivity
const universal = "universal-connectivity"

type chatCmd struct {
	Topic string `arg:"" optional:"" name:"TOPIC" default:"universal-connectivity" help:"The room. Default: universal-connectivity, which other programs know too."`
	Nick  string `placeholder:"NAME" help:"Your name. Default: your login name."`
	Meet  int    `default:"8" placeholder:"8" help:"Connect to others of the room while there are fewer connections. 0: to nobody."`
	pubsubFlags
}

func (chatCmd) Help() string {
	return `A message is its text, so that everybody in the topic can take part. Names are told in a topic of
their own, TOPIC-nick, which other programs need not know: who tells none is called by the end of
his peer ID. By pubsub's peer discovery, those of a room find each other. Without a terminal, lines
are read and printed.

What begins with / is for plexus: /help says what there is.

Examples:

  plexus chat
  plexus chat --peer ADDR --nick alice
  plexus chat garden --key me.key --port 4001`
}

const (
	maxNick    = 24               // characters
	maxPersons = 1000             // that a room remembers
	nickEvery  = 20 * time.Second // that the name is told
	nickLasts  = 70 * time.Second // and believed
	greetAfter = time.Second      // a neighbour may tell its name before it is announced
	sociable   = 30               // with more persons, newcomers hear the names when it is time
)

// said is a line of the room: a message, or what happens.
type said struct {
	What string  `json:"-"` // "message", "joined", "left", "renamed", "note"
	Time string  `json:"time"`
	From peer.ID `json:"from,omitempty"`
	Nick string  `json:"nick,omitempty"`
	Text string  `json:"text,omitempty"`

	at   time.Time
	mine bool
}

func (r said) event() string { return r.What }

func (r said) text(s style) string {
	when := s.dim(r.at.Format("15:04"))
	nick := func() string {
		if r.mine {
			return s.bold(r.Nick)
		}
		return colourOf(s, r.From, r.Nick)
	}
	switch r.What {
	case "message":
		var lines []string
		for line := range strings.Lines(r.Text) {
			lines = append(lines, clean(strings.TrimRight(line, "\r\n")))
		}
		if len(lines) > 20 {
			lines = append(lines[:20], s.dim(fmt.Sprintf("… and %d lines", len(lines)-20)))
		}
		return when + " " + nick() + "  " + strings.Join(lines, "\n"+strings.Repeat(" ", 6+utf8.RuneCountInString(r.Nick)+2))
	case "joined":
		return when + " " + s.dim("→ ") + nick() + s.dim(" is here")
	case "left":
		return when + " " + s.dim("← ") + nick() + s.dim(" has left")
	case "renamed":
		return when + " " + s.dim("· "+r.Text+" is now ") + nick()
	}
	return s.dim(r.Text)
}

// person is somebody of whom the room has heard.
type person struct {
	nick      string    // "": not told
	named     time.Time // when it was
	seqno     []byte    // of the message that did: an older one may come after it
	spoke     time.Time
	neighbour time.Time // since when; zero: it is none
	greeted   bool
}

func (p *person) here(now time.Time) bool {
	return !p.neighbour.IsZero() || p.nick != "" && now.Sub(p.named) < nickLasts
}

// A room is a chat. All of it is run's, but for what says otherwise.
type room struct {
	e       *env
	m       *member
	screen  screen
	nicks   *pubsub.Topic
	nick    string
	persons map[peer.ID]*person

	typed   <-chan typed
	heard   chan any         // *pubsub.Message, *pubsub.LostError, pubsub.Change, said
	outbox  chan func() said // what is published, in order
	renamed time.Time        // when our name was last told
}

// typed is a line of the keyboard.
type typed struct {
	text string
	err  error
}

func (c *chatCmd) Run(e *env) (err error) {
	nick, err := nickOf(c.Nick)
	if err != nil {
		return err
	}
	if c.Meet < 0 {
		return &failure{Kind: kindUsage, Text: "--meet is negative"}
	}
	m, err := c.join(e, c.Topic, gossipsub.Default(), pubsub.Config{})
	if err != nil {
		return err
	}
	defer m.Close()
	r := &room{
		e: e, m: m, nick: nick, persons: make(map[peer.ID]*person),
		heard: make(chan any, 64), outbox: make(chan func() said, 64),
	}
	if r.nicks, err = m.pubsub.Join(c.Topic+"-nick", pubsub.TopicConfig{Policy: pubsub.StrictSign}); err != nil {
		return err
	}
	_, err = gossip.Discover(m.Host, m.pubsub, gossip.DiscoveryConfig{Topics: []string{meetingOf(c.Topic)}, Connect: c.Meet})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	for _, t := range []*pubsub.Topic{m.topic, r.nicks} {
		sub := t.Subscribe()
		go r.listen(ctx, sub) // ends with ctx
	}
	if err := m.connect(); err != nil {
		return err
	}
	if r.screen, r.typed, err = e.screen(ctx); err != nil {
		return err
	}
	defer r.screen.close()
	r.screen.prompt(nick)
	r.hello(c.Topic)
	go r.watch(ctx)   // ends with ctx
	go r.publish(ctx) // ends with ctx
	err = r.run(ctx)
	r.farewell()
	return err
}

// meetingOf is the topic in which those of a room say where they are. That of
// universal-connectivity is its own; others extend the global one, as js-libp2p has it.
func meetingOf(topic string) string {
	if topic == universal {
		return "universal-connectivity-browser-peer-discovery"
	}
	return topic + "." + gossip.DiscoveryTopic
}

// nickOf checks a name; "" stands for the login name.
func nickOf(name string) (string, error) {
	given := name != ""
	if !given {
		name = cmp.Or(os.Getenv("USER"), os.Getenv("USERNAME"), "somebody")
	}
	n := cleanNick(name)
	if n == "" || given && n != name {
		return "", &failure{Kind: kindUsage, Text: fmt.Sprintf("a name has up to %d characters, all of them visible: %q does not do", maxNick, name)}
	}
	return n, nil
}

// cleanNick is what can be shown of a name.
func cleanNick(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxNick {
		s = string(r[:maxNick])
	}
	return strings.Join(strings.Fields(s), " ")
}

// listen takes messages in.
func (r *room) listen(ctx context.Context, sub *pubsub.Subscription) {
	for m, err := range sub.All(ctx) {
		var ev any = m
		if lost, ok := errors.AsType[*pubsub.LostError](err); ok {
			ev = lost
		} else if err != nil {
			return
		}
		r.hear(ctx, ev)
	}
}

// watch takes neighbours in.
func (r *room) watch(ctx context.Context) {
	for c := range r.m.topic.Watch(ctx) {
		r.hear(ctx, c)
	}
}

func (r *room) hear(ctx context.Context, ev any) {
	select {
	case r.heard <- ev:
	case <-ctx.Done():
	}
}

// publish sends what is said, one after the other.
func (r *room) publish(ctx context.Context) {
	for {
		select {
		case f := <-r.outbox:
			if s := f(); s.What != "" {
				r.hear(ctx, s)
			}
		case <-ctx.Done():
			return
		}
	}
}

// run is the chat, until the keyboard ends.
func (r *room) run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	r.tellNick(ctx)
	for {
		select {
		case ev := <-r.heard:
			r.happened(ctx, ev)
		case l := <-r.typed:
			switch {
			case l.err == io.EOF:
				return r.drain(ctx)
			case l.err != nil:
				return fmt.Errorf("keyboard: %w", l.err)
			case !r.line(ctx, l.text):
				return r.drain(ctx)
			}
		case now := <-tick.C:
			r.tick(ctx, now)
		case <-ctx.Done():
			return nil
		}
	}
}

// drain shows what comes of the last lines said.
func (r *room) drain(ctx context.Context) error {
	done, outbox := make(chan bool), r.outbox
	last := func() said { close(done); return said{} }
	for {
		select {
		case outbox <- last: // there may be no room, or after ^C nobody who takes it
			outbox = nil
		case ev := <-r.heard:
			r.happened(ctx, ev)
		case <-done:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *room) happened(ctx context.Context, ev any) {
	now := time.Now()
	switch ev := ev.(type) {
	case *pubsub.Message:
		if ev.Topic == r.nicks.String() {
			r.named(now, ev)
		} else if ev.ReceivedFrom != r.m.ID() {
			p := r.person(now, ev.From)
			p.spoke, p.greeted = now, true
			r.show(said{What: "message", From: ev.From, Nick: r.name(ev.From), Text: string(ev.Data)})
		}
	case *pubsub.LostError:
		r.note("%s lost: they came faster than they were shown", count(ev.Messages, "message"))
	case pubsub.Change:
		p := r.person(now, ev.Peer)
		if p.neighbour = now; !ev.Here {
			p.neighbour = time.Time{}
			if p.nick == "" {
				r.gone(ev.Peer, p)
			}
			return
		}
		// It has not heard our name.
		if now.Sub(r.renamed) > greetAfter/2 {
			r.tellNick(ctx)
		} else {
			r.renamed = time.Time{} // with the next tick
		}
	case said:
		r.show(ev)
	}
}

// person returns what is known of somebody.
func (r *room) person(now time.Time, id peer.ID) *person {
	p := r.persons[id]
	if p != nil {
		return p
	}
	for old, q := range r.persons {
		if len(r.persons) >= maxPersons && !q.here(now) {
			delete(r.persons, old)
		}
	}
	for old := range r.persons {
		if len(r.persons) >= maxPersons {
			delete(r.persons, old) // all of them are here; he comes back with his next word
		}
	}
	p = new(person)
	r.persons[id] = p
	return p
}

// name is what somebody is called. Where two have one name, it says which.
func (r *room) name(id peer.ID) string {
	if id == r.m.ID() {
		return r.nick
	}
	if id == "" {
		return "nobody" // unsigned
	}
	p := r.persons[id]
	if p == nil || p.nick == "" {
		return id.Short()
	}
	twice := strings.EqualFold(p.nick, r.nick)
	for other, q := range r.persons {
		twice = twice || other != id && strings.EqualFold(p.nick, q.nick)
	}
	if twice {
		return p.nick + "·" + id.Short()
	}
	return p.nick
}

// named notes the name that somebody tells; an empty one is a farewell.
func (r *room) named(now time.Time, m *pubsub.Message) {
	if m.From == r.m.ID() || len(m.Data) > 8*maxNick {
		return
	}
	p, nick := r.person(now, m.From), cleanNick(string(m.Data))
	if bytes.Compare(m.Seqno, p.seqno) < 0 {
		return
	}
	p.seqno = m.Seqno
	if nick == "" {
		p.neighbour = time.Time{}
		r.gone(m.From, p)
		return
	}
	before := r.name(m.From)
	was := p.nick
	p.nick, p.named = nick, now
	switch {
	case !p.greeted:
		r.greet(m.From, p)
		if len(r.persons) <= sociable {
			r.renamed = time.Time{} // a newcomer: he hears our name with the next tick
		}
	case was != nick:
		r.show(said{What: "renamed", From: m.From, Nick: r.name(m.From), Text: before})
	}
}

func (r *room) greet(id peer.ID, p *person) {
	p.greeted = true
	r.show(said{What: "joined", From: id, Nick: r.name(id)})
}

func (r *room) gone(id peer.ID, p *person) {
	if p.greeted {
		r.show(said{What: "left", From: id, Nick: r.name(id)})
	}
	p.nick, p.greeted = "", false
}

func (r *room) tick(ctx context.Context, now time.Time) {
	for id, p := range r.persons {
		switch {
		case !p.greeted && !p.neighbour.IsZero() && now.Sub(p.neighbour) >= greetAfter:
			r.greet(id, p)
		case p.nick != "" && !p.here(now):
			r.gone(id, p)
		}
	}
	if now.Sub(r.renamed) >= nickEvery {
		r.tellNick(ctx)
	}
}

// tellNick tells the others our name.
func (r *room) tellNick(ctx context.Context) {
	r.renamed = time.Now()
	nick := r.nick
	r.say(ctx, func() said {
		ctx, cancel := context.WithTimeout(ctx, flushTimeout)
		defer cancel()
		r.nicks.Publish(ctx, []byte(nick)) // who does not hear it calls us by our ID
		return said{}
	})
}

func (r *room) say(ctx context.Context, f func() said) {
	select {
	case r.outbox <- f:
	case <-ctx.Done():
	default:
		r.note("too much is said at once: this is not")
	}
}

// line does what was typed. It returns false if that is to leave.
func (r *room) line(ctx context.Context, text string) bool {
	text = strings.TrimRightFunc(text, unicode.IsSpace)
	switch {
	case text == "":
	case strings.HasPrefix(text, "//"):
		r.message(ctx, text[1:])
	case strings.HasPrefix(text, "/"):
		verb, arg, _ := strings.Cut(text[1:], " ")
		return r.command(ctx, verb, strings.TrimSpace(arg))
	default:
		r.message(ctx, text)
	}
	return true
}

func (r *room) message(ctx context.Context, text string) {
	r.show(said{What: "message", From: r.m.ID(), Nick: r.nick, Text: text, mine: true})
	r.say(ctx, func() said {
		ctx, cancel := context.WithTimeout(ctx, flushTimeout)
		defer cancel()
		receipt, err := r.m.topic.Publish(ctx, []byte(text))
		switch {
		case errors.Is(err, pubsub.ErrNoPeers):
			return noted("nobody else is here: nobody heard that")
		case err != nil && r.e.ctx.Err() == nil:
			_, why := reason(err)
			return noted("that was not sent: %s", why)
		case receipt.Left > 0:
			return noted("%s had no room for that", count(receipt.Left, "peer"))
		}
		return said{}
	})
}

func (r *room) command(ctx context.Context, verb, arg string) bool {
	switch verb {
	case "quit", "exit", "q":
		return false
	case "who", "w":
		r.who()
	case "nick":
		if arg == "" {
			r.note("which name? Type /nick NAME")
			break
		}
		n, err := nickOf(arg)
		if err != nil {
			r.note("%v", err)
			break
		}
		r.nick = n
		r.screen.prompt(n)
		r.tellNick(ctx)
	case "addr":
		for _, a := range r.m.Info().Full() {
			r.note("%s", a)
		}
	case "connect":
		r.connect(ctx, arg)
	case "help":
		r.note("/who            who is here\n" +
			"/nick NAME      be called so\n" +
			"/addr           how others get here: plexus chat --peer ADDR\n" +
			"/connect ADDR   connect to somebody\n" +
			"/quit           leave; so do ^D and ^C\n" +
			"//…             say something that begins with /")
	default:
		r.note("there is no /%s; /help says what there is", clean(verb))
	}
	return true
}

func (r *room) who() {
	now := time.Now()
	var lines []string
	for id, p := range r.persons {
		if !p.here(now) {
			continue
		}
		line := pad(r.name(id), maxNick+1) + " " + id.String()
		if p.neighbour.IsZero() {
			line += "  through others"
		}
		lines = append(lines, line)
	}
	slices.SortFunc(lines, func(a, b string) int { return cmp.Compare(strings.ToLower(a), strings.ToLower(b)) })
	r.note("%s", strings.Join(append([]string{pad(r.nick+" (you)", maxNick+1) + " " + r.m.ID().String()}, lines...), "\n"))
}

// connect connects to somebody in the background.
func (r *room) connect(ctx context.Context, addr string) {
	if addr == "" {
		r.note("to whom? Type /connect ADDR")
		return
	}
	to, err := parseAddr(addr)
	if err != nil {
		r.note("%v", describe(err).Text)
		return
	}
	go func() { // ends with the dial
		ctx, cancel := r.e.within()
		defer cancel()
		s := noted("connected to %s", addr)
		if _, err := r.m.Dial(ctx, to); err != nil {
			s = noted("%s", describe(tried("connect to "+addr, err)).Text)
		}
		r.hear(ctx, s)
	}()
}

// hello is what the screen begins with.
func (r *room) hello(topic string) {
	if r.e.JSON || !r.screen.terminal() {
		r.m.announce()
		return
	}
	r.note("%s. You are %s (%s); /help says what else there is.", clean(topic), r.nick, r.m.ID().Short())
	if len(r.m.peers) == 0 {
		if full := r.m.Info().Full(); len(full) > 0 {
			r.note("Others get here by: plexus chat %s--peer %s", topicArg(topic), full[0])
		}
	}
}

func topicArg(topic string) string {
	if topic == universal {
		return ""
	}
	return topic + " "
}

// farewell tells that we leave.
func (r *room) farewell() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.nicks.Publish(ctx, nil)
}

func noted(format string, args ...any) said {
	return said{What: "note", Text: fmt.Sprintf(format, args...)}
}

func (r *room) note(format string, args ...any) { r.show(noted(format, args...)) }

// show puts a line on the screen.
func (r *room) show(s said) {
	s.at = time.Now()
	s.Time = s.at.UTC().Format(time.RFC3339Nano)
	r.screen.show(s)
}

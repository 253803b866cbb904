package main

import (
	"context"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/plexus-p2p/plexus/transport"
)

// cli is the command line: common flags, and one verb.
type cli struct {
	flags

	Demo    demoCmd    `cmd:"" help:"Two hosts meet and talk: every stage, with its time and round trips. Start here."`
	Up      upCmd      `cmd:"" help:"Run a node until ^C."`
	Ping    pingCmd    `cmd:"" help:"Measure the round trip to a node."`
	ID      idCmd      `cmd:"" name:"id" help:"Ask a node who it is."`
	Perf    perfCmd    `cmd:"" help:"Measure how fast bytes go to a node and back."`
	Explain explainCmd `cmd:"" help:"Connect to a node, and draw how that went."`
	Cat     catCmd     `cmd:"" help:"Connect standard input and output to a stream."`
	Pub     pubCmd     `cmd:"" help:"Publish messages to a topic."`
	Sub     subCmd     `cmd:"" help:"Print the messages of a topic."`
	Chat    chatCmd    `cmd:"" help:"Chat with everybody in a topic."`
	Topic   topicCmd   `cmd:"" help:"Show a topic as it lives: mesh, scores, rates."`
	Key     keyCmd     `cmd:"" help:"Make and show identities."`
	Version versionCmd `cmd:"" help:"Say which plexus this is."`
}

// flags are common to all verbs.
type flags struct {
	Key      string        `group:"common" placeholder:"FILE" type:"path" help:"Be the identity in this file. Default: a fresh one."`
	SwarmKey string        `group:"common" placeholder:"FILE" type:"path" help:"Be in the private network whose key is in this file."`
	Timeout  time.Duration `group:"common" default:"15s" placeholder:"15s" help:"Give up connecting, or waiting for an answer, after this long. 0: never."`
	Security []string      `group:"common" placeholder:"LIST" enum:"noise,tls,plaintext" help:"Secure channels in order of preference, of noise, tls and plaintext. Default: noise,tls."`
	Muxer    []string      `group:"common" placeholder:"LIST" enum:"yamux,mplex" help:"Stream muxers in order of preference, of yamux and mplex. Default: yamux."`
	JSON     bool          `group:"common" name:"json" help:"Print one JSON object a line."`
	NoColor  bool          `group:"common" help:"No colours, as with NO_COLOR set, and where there is no terminal."`
	Verbose  bool          `group:"common" short:"v" help:"Log to standard error what the node does."`
}

// A verb does what its part of the command line says.
type verb interface{ Run(*env) error }

// env is what a verb runs in.
type env struct {
	flags
	ctx    context.Context // ends with ^C
	stdin  io.Reader
	stdout io.Writer // for cat, which prints no records
	stderr io.Writer
	out    *printer
	notes  *printer // on standard error

	network transport.Network // what nodes run on; nil: the operating system's
}

const about = `plexus connects hosts: a libp2p node, and the tools to look at others.

ADDR is a multiaddr, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…; without its
/p2p part, whoever answers will do.`

// run is the command: it returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runOn(ctx, nil, args, stdin, stdout, stderr)
}

// runOn is run on a network.
func runOn(ctx context.Context, network transport.Network, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	e := &env{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr, network: network}
	e.JSON = slices.Contains(args, "--json") // for what is wrong with the others
	kctx, helped, err := parse(&e.flags, args, stdout, stderr)
	if helped {
		return 0
	}
	e.out = newPrinter(stdout, e.JSON, !e.NoColor)
	e.notes = newPrinter(stderr, e.JSON, !e.NoColor)
	if err == nil {
		// Not kctx.Run, which joins errors, and would join this one with nothing.
		err = kctx.Selected().Target.Addr().Interface().(verb).Run(e)
	}
	if err == nil {
		err = e.out.failed()
	}
	if err == nil {
		return 0
	}
	f := describe(err)
	e.notes.print(f)
	if f.Kind == kindUsage || f.Kind == kindAddress {
		return 2
	}
	return 1
}

// news is where a verb says what is no result of it: standard error, or with --json, where
// each line says what it is, standard output.
func (e *env) news() *printer {
	if e.JSON {
		return e.out
	}
	return e.notes
}

// hint says what to do next to a person at a terminal, and to nobody else.
func (e *env) hint(text string) {
	if e.notes.style.terminal {
		e.notes.say("%s", e.notes.style.dim(text))
	}
}

// parse reads the command line into what kong runs the verb with. It tells
// whether help was asked for, and printed.
func parse(f *flags, args []string, stdout, stderr io.Writer) (kctx *kong.Context, helped bool, err error) {
	// "plexus help ping" is what people type.
	if len(args) > 0 && args[0] == "help" {
		args = append(args[1:len(args):len(args)], "--help")
	}
	none := len(args) == 0
	if none {
		args = []string{"--help"}
		stdout = stderr
	}
	var c cli
	k, err := kong.New(&c,
		kong.Name("plexus"),
		kong.Description(about),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }), // called by --help alone
		kong.ExplicitGroups([]kong.Group{{Key: "common", Title: "Common flags:"}}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 90}),
	)
	if err != nil {
		panic(err) // a tag of cli is wrong
	}
	kctx, err = k.Parse(args)
	c.flags.JSON = c.flags.JSON || f.JSON
	*f = c.flags
	switch {
	case none:
		return nil, false, &failure{Kind: kindUsage, Text: "which verb? Try: plexus demo"}
	case helped:
		return nil, true, nil
	case err != nil:
		more := "plexus --help"
		if verb := verbOf(k, args); verb != "" {
			more = "plexus " + verb + " --help"
		}
		text := dashed.ReplaceAllString(strings.ReplaceAll(err.Error(), "\n", " "), "$1 is read as a flag; if it is the value, write $2")
		return nil, false, &failure{Kind: kindUsage, Text: text + "; see " + more}
	case f.Timeout < 0:
		return nil, false, &failure{Kind: kindUsage, Text: "--timeout is negative"}
	}
	return kctx, false, nil
}

// dashed is what kong says of a value that begins with a dash.
var dashed = regexp.MustCompile(`expected \w+ value but got (".*") \((?:short|long) flag\); perhaps try (.*)\?$`)

// verbOf names the verb in args, as far as there is one.
func verbOf(k *kong.Kong, args []string) string {
	for _, a := range args {
		for _, v := range k.Model.Children {
			if v.Name == a {
				return a
			}
		}
	}
	return ""
}

package main

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pty opens a pseudo terminal of 80 columns: what the program has, and the other end.
func pty(t *testing.T) (tty, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	}
	if err == nil {
		tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { tty.Close() })
	return tty, screen
}

// On a terminal, what is said goes above the line that is being typed, which stays; a
// line that was typed comes back as what was said; ^D leaves.
func TestChatTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	hub, addr := subscribe(t, "chat", "garden", "--nick", "hub")
	tty, screen := pty(t)
	status := make(chan int, 1)
	go func() {
		status <- run(t.Context(), []string{"chat", "garden", "--nick", "bob", "-l", loopback, "--peer", addr}, tty, tty, io.Discard)
		tty.Close()
	}()
	var seen bytes.Buffer
	until := func(pattern string) string {
		t.Helper()
		re := regexp.MustCompile(pattern)
		b := make([]byte, 4096)
		for !re.Match(seen.Bytes()) {
			n, err := screen.Read(b)
			if seen.Write(b[:n]); err != nil {
				t.Fatalf("%v; on the screen is %q", err, seen.String())
			}
		}
		at := re.FindIndex(seen.Bytes())
		return string(seen.Next(at[1]))
	}
	until(`You are bob`)
	until("\x1b\\[1mbob\x1b\\[0m› ") // the prompt
	until("hub.* is here")
	hub.until(`"nick":"bob"`)
	io.WriteString(screen, "half a li")
	until("half a li")
	io.WriteString(hub.keys, "what about you?\n")
	if got := until("half a li"); !strings.Contains(got, "what about you?\r\n") {
		t.Errorf("the screen got %q", got)
	}
	io.WriteString(screen, "ne\x7f\x7fne\r")
	if got := until("half a line\r?\n"); !strings.Contains(got, "\x1b[A\x1b[2K") {
		t.Errorf("the typed line was not taken away: %q", got)
	}
	if m := hub.event("message"); m["text"] != "half a line" || m["nick"] != "bob" {
		t.Errorf("hub heard %v", m)
	}
	io.WriteString(screen, "\x04")
	if got := <-status; got != 0 {
		t.Errorf("status %d", got)
	}
	hub.event("left")
}

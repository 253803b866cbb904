// Package child runs the program that imports it once more, as a process that takes
// orders on its standard input and answers each on its output, a JSON value a line.
package child

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// A Process is such a process. It is used by one goroutine at a time.
type Process struct {
	cmd *exec.Cmd
	in  io.Closer
	enc *json.Encoder
	dec *json.Decoder
}

// Start starts one with these arguments. It dies with the thread that started it.
func Start(args ...string) (*Process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &Process{cmd, in, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))}, nil
}

// Ask gives it an order and waits for the report.
func (w *Process) Ask(order, report any) error {
	if err := w.enc.Encode(order); err != nil {
		return err
	}
	return w.Hear(report)
}

// Hear waits for a report that comes unasked.
func (w *Process) Hear(report any) error { return w.dec.Decode(report) }

// End tells it to end, and Wait waits until it has.
func (w *Process) End() { w.in.Close() }

// Wait is called after End.
func (w *Process) Wait() { w.cmd.Wait() }

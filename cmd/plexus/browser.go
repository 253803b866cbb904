package main

import (
	_ "embed"
	"encoding/json"
	"strings"
	"text/template"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/plexus-p2p/plexus/peer"
)

// A browser can dial what has one of these in its address. Others it cannot, be it for
// want of sockets or, with WebRTC between browsers, of somebody who introduces them.
var browserProtocols = []int{ma.P_WS, ma.P_WSS, ma.P_WEBTRANSPORT, ma.P_WEBRTC_DIRECT}

//go:embed browser.js.tmpl
var browserText string

var browserTemplate = template.Must(template.New("").Parse(browserText))

// script is the JavaScript module by which a browser connects to a node.
type script struct {
	Peer   peer.ID `json:"peer"`
	Module string  `json:"module"`
}

func (script) event() string       { return "javascript" }
func (r script) text(style) string { return strings.TrimSuffix(r.Module, "\n") }

func newScript(info peer.AddrInfo) (script, error) {
	data := struct {
		Peer, Packages, Echo string
		Addrs                []string
		WebTransport, WebRTC bool
	}{Peer: info.ID.String(), Echo: quote(echo)}
	packages := []string{"libp2p", "@libp2p/noise", "@libp2p/ping", "@libp2p/websockets", "@libp2p/yamux", "@multiformats/multiaddr"}
	for _, a := range info.Full() {
		has := func(code int) bool { _, err := a.ValueForProtocol(code); return err == nil }
		for _, p := range browserProtocols {
			if has(p) {
				data.Addrs = append(data.Addrs, quote(a.String()))
				break
			}
		}
		data.WebTransport = data.WebTransport || has(ma.P_WEBTRANSPORT)
		data.WebRTC = data.WebRTC || has(ma.P_WEBRTC_DIRECT)
	}
	if data.WebTransport {
		packages = append(packages, "@libp2p/webtransport")
	}
	if data.WebRTC {
		packages = append(packages, "@libp2p/webrtc")
	}
	data.Packages = strings.Join(packages, " ")
	var b strings.Builder
	err := browserTemplate.Execute(&b, data)
	return script{info.ID, b.String()}, err
}

// quote makes a JavaScript string of s.
func quote(s string) string {
	b, _ := json.Marshal(s) // of a string: cannot fail
	return string(b)
}

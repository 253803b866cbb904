package main

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/plexus-p2p/plexus/peer"
	"github.com/plexus-p2p/plexus/security/pnet"
)

type keyCmd struct {
	New   keyNewCmd   `cmd:"" help:"Make a new identity in a new file."`
	Show  keyShowCmd  `cmd:"" help:"Show whose identity a file holds; never the secret."`
	Swarm keySwarmCmd `cmd:"" help:"Make the key of a private network in a new file."`
}

type keyNewCmd struct {
	File string `arg:"" name:"FILE" type:"path" help:"The file to make; an existing one is left alone."`
	Type string `short:"t" default:"ed25519" enum:"ed25519,rsa,secp256k1,ecdsa" placeholder:"ed25519" help:"Kind of key: ed25519, rsa, secp256k1, ecdsa. Every node knows ed25519."`
}

func (keyNewCmd) Help() string {
	return `The file has the form of go-libp2p's and Kubo's keys, and only its owner may read it.

Examples:

  plexus key new me.key
  plexus up --key me.key`
}

type keyShowCmd struct {
	File string `arg:"" name:"FILE" type:"path" help:"A key file."`
}

func (keyShowCmd) Help() string {
	return `Examples:

  plexus key show me.key
  plexus key show --json me.key | jq -r .peer`
}

type keySwarmCmd struct {
	File string `arg:"" name:"FILE" type:"path" help:"The file to make; an existing one is left alone."`
}

func (keySwarmCmd) Help() string {
	return `Nodes with a copy of the file reach each other, and nobody else. It is Kubo's swarm.key.

Examples:

  plexus key swarm swarm.key
  plexus up --swarm-key swarm.key`
}

// keyInfo is the public side of a key.
type keyInfo struct {
	Peer      peer.ID `json:"peer"`
	CID       string  `json:"cid"`
	KeyType   string  `json:"key_type"`
	PublicKey string  `json:"public_key"`
	File      string  `json:"file"`
}

func (keyInfo) event() string { return "key" }

func (r keyInfo) text(s style) string {
	return strings.Join([]string{
		s.dim("peer        ") + s.bold(r.Peer.String()),
		s.dim("as a CID    ") + r.CID,
		s.dim("key type    ") + r.KeyType,
		s.dim("public key  ") + r.PublicKey,
		s.dim("file        ") + r.File,
	}, "\n")
}

func showKey(e *env, file string, k peer.PrivKey) {
	e.out.print(keyInfo{
		Peer: k.ID(), CID: k.ID().CID(), KeyType: k.Type().String(),
		PublicKey: base64.StdEncoding.EncodeToString(k.Public().Raw()), File: file,
	})
}

func (c *keyNewCmd) Run(e *env) error {
	t := map[string]peer.KeyType{
		"ed25519": peer.Ed25519, "rsa": peer.RSA, "secp256k1": peer.Secp256k1, "ecdsa": peer.ECDSA,
	}[c.Type]
	k, err := peer.GenerateKey(t)
	if err != nil {
		return fmt.Errorf("key new: %w", err)
	}
	if err := peer.SaveKey(c.File, k); err != nil {
		return err
	}
	showKey(e, c.File, k)
	return nil
}

func (c *keyShowCmd) Run(e *env) error {
	k, err := peer.LoadKey(c.File)
	if err != nil {
		return err
	}
	showKey(e, c.File, k)
	return nil
}

// swarmInfo tells private networks apart.
type swarmInfo struct {
	Fingerprint string `json:"fingerprint"`
	File        string `json:"file"`
}

func (swarmInfo) event() string { return "swarm key" }

func (r swarmInfo) text(s style) string {
	return strings.Join([]string{
		s.dim("fingerprint ") + s.bold(r.Fingerprint),
		s.dim("file        ") + r.File,
	}, "\n")
}

func (c *keySwarmCmd) Run(e *env) error {
	k := pnet.NewKey()
	if err := pnet.SaveKey(c.File, k); err != nil {
		return err
	}
	e.out.print(swarmInfo{k.Fingerprint(), c.File})
	return nil
}

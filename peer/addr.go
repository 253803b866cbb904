package peer

import (
	"fmt"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
)

// AddrInfo is a peer and where it is reached. The addresses do not name the peer
// at their end: "/ip4/192.0.2.1/tcp/4001", not "/ip4/192.0.2.1/tcp/4001/p2p/12D3…".
type AddrInfo struct {
	ID    ID
	Addrs []ma.Multiaddr
}

// ParseAddrInfo reads an address that ends in its peer, as users pass it around:
// "/ip4/192.0.2.1/tcp/4001/p2p/12D3…", or "/p2p/12D3…" where only the peer is
// known. The error wraps [ErrAddr].
func ParseAddrInfo(s string) (AddrInfo, error) {
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return AddrInfo{}, fmt.Errorf("%w: %w", ErrAddr, err)
	}
	infos, err := AddrInfos(a)
	if err != nil {
		return AddrInfo{}, err
	}
	return infos[0], nil
}

// AddrInfos groups addresses that end in a peer by that peer, in the order in
// which the peers first appear. The error wraps [ErrAddr] if one does not, and
// [ErrID] too if it is a malformed one.
func AddrInfos(addrs ...ma.Multiaddr) ([]AddrInfo, error) {
	var infos []AddrInfo
	at := make(map[ID]int)
	for _, full := range addrs {
		a, id := SplitAddr(full)
		if id == "" {
			return nil, fmt.Errorf("%w: %q does not end in /p2p/ and an ID", ErrAddr, full)
		}
		i, ok := at[id]
		if !ok {
			// multiaddr takes any identity multihash for a peer.
			if err := id.Validate(); err != nil {
				return nil, fmt.Errorf("%w: %q: %w", ErrAddr, full, err)
			}
			i = len(infos)
			at[id] = i
			infos = append(infos, AddrInfo{ID: id})
		}
		if len(a) > 0 {
			infos[i].Addrs = append(infos[i].Addrs, a)
		}
	}
	return infos, nil
}

// SplitAddr takes the peer off the end of an address: it returns the address of
// the transport, nil if there is none, and the ID, "" if there is none.
//
// The ID is as it stands there, and may be malformed: as such it is equal to no
// peer's and matches no key, so that nobody can be taken for it.
func SplitAddr(a ma.Multiaddr) (ma.Multiaddr, ID) {
	if len(a) == 0 {
		return nil, ""
	}
	n := len(a) - 1
	if a[n].Code() != ma.P_P2P {
		return a, ""
	}
	id := ID(a[n].RawValue())
	if n == 0 {
		return nil, id
	}
	return a[:n:n], id // no copy; an append to it makes one
}

// Full returns the addresses with the peer at their end, for somebody else to
// dial; only "/p2p/" and the ID if there are none. They are nil if the ID is
// malformed.
func (i AddrInfo) Full() []ma.Multiaddr {
	c, err := ma.NewComponent("p2p", i.ID.String())
	if err != nil {
		return nil
	}
	if len(i.Addrs) == 0 {
		return []ma.Multiaddr{{*c}}
	}
	full := make([]ma.Multiaddr, len(i.Addrs))
	for n, a := range i.Addrs {
		full[n] = append(a[:len(a):len(a)], *c)
	}
	return full
}

// String returns the peer and its addresses, for people to read.
func (i AddrInfo) String() string {
	var b strings.Builder
	b.WriteString(i.ID.String())
	for n, a := range i.Addrs {
		b.WriteString([]string{" at ", ", "}[min(n, 1)])
		b.WriteString(a.String())
	}
	return b.String()
}

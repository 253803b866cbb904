#!/usr/bin/env bash
# Runs the stages named as arguments, or all of them, and prints what each took.
# A stage that fails does not keep the next ones from running.
set -uo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"
export PLEXUS_SKIPS="$(mktemp)" # tests append their skips here
trap 'rm -f "$PLEXUS_SKIPS"' EXIT

STATICCHECK=honnef.co/go/tools/cmd/staticcheck@v0.8.2

lint() {
	local unformatted
	unformatted=$(gofmt -l . | grep -v testdata)
	[ -z "$unformatted" ] || { echo "not formatted: $unformatted"; return 1; }
	go vet ./... && (cd interop && go vet ./...) && go run "$STATICCHECK" ./...
}

tidy() { # go.mod and go.sum say what the code needs
	go mod tidy -diff && go mod verify
}

unit() { go test ./...; }

race() { go test -race ./...; }

conformance() { # "50 times in a row"
	go test -race -run 'NetTest|Conformance' -count=50 -timeout 20m ./muxer/...
}

fuzz() {
	local file name pkg
	grep -rn --include='*_test.go' -oE '^func Fuzz[A-Za-z0-9_]+' . | grep -v '^./interop' | while IFS=: read -r file _ name; do
		name=${name#func }
		pkg=$(dirname "$file")
		echo "$pkg $name"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-10s}" "$pkg" || return 1
	done
}

figures() { PLEXUS_FIGURES=1 go test -count=1 -v -run '^TestFigure' ./... | grep -vE 'no test files|no tests to run|^=== '; }

demo() { go run ./cmd/plexus demo; }

interop() {
	interop/install.sh && (cd interop && INTEROP_WRITE="${WRITE:-}" go test -count=1 -timeout 40m -v ./...)
}

all=(lint tidy unit race conformance figures fuzz demo interop)
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
printf '%s' "$report"
if [ -s "$PLEXUS_SKIPS" ]; then
	echo "not run:"
	sort -u "$PLEXUS_SKIPS"
	[ "${CI:-}" != true ] || failed=$((failed + 1))
fi
echo "stages: $passed passed, $failed failed"
[ "$failed" -eq 0 ]

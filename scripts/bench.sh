#!/usr/bin/env bash
# What `make muxerbench`, `make bench-baseline` and `make bench-compare` run.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"
out=$(mktemp)
trap 'rm -f "$out" "$out".*' EXIT

BENCHSTAT=golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
baseline=${BASELINE:-docs/bench-baseline.txt}

# micro runs the benchmarks of single packages. On two processors, whatever there
# are: their number is part of a benchmark's name. Left out is what begins with a
# hundred goroutines, whose allocations are shared by more or fewer operations.
micro() {
	go test -run '^$' -bench "${BENCH:-.}" -skip '/100$|/^Idle$|^BenchmarkNoise$' \
		-cpu 2 -count "${COUNT:-6}" -benchtime "${BENCHTIME:-100ms}" \
		./multiselect ./security/noise ./muxer/yamux ./identify ./peer ./dial >"$1" ||
		{ cat "$1"; return 1; }
	sed -i -E '/^(PASS$|ok |cpu:)/d' "$1"
}

benchstat() { go run "$BENCHSTAT" -table pkg -ignore goos,goarch,cpu "$@" baseline="$baseline" now="$out"; }

case "${1:-}" in
muxers)
	go test -run '^$' -bench . -count "${COUNT:-3}" -benchtime "${BENCHTIME:-200ms}" ./muxer/muxerbench >"$out" || { cat "$out"; exit 1; }
	go run ./muxer/muxerbench <"$out" >"$out.md"
	{
		printf '# The muxers beside each other\n\nWritten by `make muxerbench` on %d cores, %s, over a pipe in memory and over TCP on loopback, without encryption. ' \
			"$(nproc)" "$(go env GOVERSION)"
		printf 'A cell is the rate, the CPU time and the allocations of both ends for an operation. Write64Bx100 is writes of 64 B on each of 100 streams. '
		printf 'Idle is what each end of a session and of a stream holds: memory and goroutines.\n\n'
		cat "$out.md"
	} | tee docs/muxers.md
	;;
baseline)
	micro "$out"
	cp "$out" "$baseline"
	;;
compare)
	micro "$out"
	benchstat -filter '.unit:(sec/op OR allocs/op)'
	# Times differ from machine to machine, allocations do not. In CSV a row is name,
	# baseline, its interval, now, its interval, difference, p; the difference is ~ where
	# it may be chance, and ? where the baseline is 0. What is made once counts for more
	# on a slower machine: 3 % are allowed.
	benchstat -filter '.unit:allocs/op' -format csv 2>/dev/null | awk -F, '
		$1 == "geomean" || $2 == "" || $4 !~ /^[0-9.e+]+$/ { next }
		{ compared++ }
		$6 != "~" && $4 > 1.03 * $2 { print $1 ": " $4 " allocations, " $2 " in the baseline"; more++ }
		END {
			if (!compared) print "nothing to compare: is there a baseline?"
			exit !compared || more
		}'
	;;
*)
	echo "usage: $0 muxers|baseline|compare" >&2
	exit 2
	;;
esac

# Everything that a person does with this checkout. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help build test quick race fuzz conformance sim interop figures lint bench bench-mixed growth bench-pubsub muxerbench bench-baseline bench-compare clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the command, at ./plexus
	go build -o plexus ./cmd/plexus

quick: ## go vet and go test ./...: needs only Go
	go vet ./... && go test ./...

test: ## everything: lint, tests, race, conformance, fuzz smoke, figures, simulations, interop; installs what it needs
	scripts/test.sh

lint: ## gofmt, go vet, staticcheck
	scripts/test.sh lint

race: ## go test -race ./...
	scripts/test.sh race

conformance: ## the muxers under -race: nettest 50 times, the rest of muxertest 20 times
	scripts/test.sh conformance

fuzz: ## each fuzz target for FUZZTIME (5s)
	scripts/test.sh fuzz

figures: ## the figures that the README states: allocations, writes, memory, sizes, latency
	scripts/test.sh figures

sim: ## attacks on pubsub in simulated networks of 5000 nodes; NODES=5000
	NODES=$(or $(NODES),5000) scripts/test.sh sim

interop: ## the matrix against go-, js-, rust- and py-libp2p; WRITE=1 keeps the table
	scripts/test.sh interop

bench: ## plexus beside go-libp2p: docs/bench.md and docs/bench.svg, 13 minutes; ROUNDS=10
	mkdir -p docs && cd bench && go run . -rounds $(or $(ROUNDS),10) -time 400ms -md ../docs/bench.md

bench-mixed: ## the same with plexus at one end and go-libp2p at the other: docs/mixed.md; ROUNDS=3
	mkdir -p docs && cd bench && go run . -mixed -stack noise -rounds $(or $(ROUNDS),3) -md ../docs/mixed.md

growth: ## how costs grow beside go-libp2p: docs/growth.md and docs/growth.svg, 4 minutes; GROWTH='-conns 10,100 -idle 1s'
	mkdir -p docs && cd bench && go run . -growth ../docs/growth.md -rounds 3 $(GROWTH)

bench-pubsub: ## gossipsub beside go-libp2p-pubsub: docs/pubsub.md; ROUNDS=3
	mkdir -p docs && cd bench && go run ./pubsub -rounds $(or $(ROUNDS),3) -md ../docs/pubsub.md

muxerbench: ## the muxers beside each other: docs/muxers.md; COUNT=3
	scripts/bench.sh muxers

bench-baseline: ## what bench-compare compares with: docs/bench-baseline.txt
	scripts/bench.sh baseline

bench-compare: ## the micro-benchmarks beside the baseline, by benchstat; fails if they allocate more
	scripts/bench.sh compare

clean: ## what building left here
	rm -f plexus
	go clean -testcache

# Everything that a person does with this checkout. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help build test quick race fuzz conformance interop figures lint bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the command, at ./plexus
	go build -o plexus ./cmd/plexus

quick: ## go vet and go test ./...: needs only Go
	go vet ./... && go test ./...

test: ## everything: lint, tests, race, conformance, fuzz smoke, figures, interop; installs what it needs
	scripts/test.sh

lint: ## gofmt, go vet, staticcheck
	scripts/test.sh lint

race: ## go test -race ./...
	scripts/test.sh race

conformance: ## the muxers' nettest suites, 50 times under -race
	scripts/test.sh conformance

fuzz: ## each fuzz target for FUZZTIME (5s)
	scripts/test.sh fuzz

figures: ## the figures that the README states: allocations, writes, memory, sizes, latency
	scripts/test.sh figures

interop: ## the matrix against go-, js-, rust- and py-libp2p; WRITE=1 keeps the table
	scripts/test.sh interop

bench: ## plexus beside go-libp2p: docs/bench.md and docs/bench.svg; ROUNDS=5
	mkdir -p docs && cd bench && go run . -rounds $(or $(ROUNDS),5) -md ../docs/bench.md

clean: ## what building left here
	rm -f plexus
	go clean -testcache

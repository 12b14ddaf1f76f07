# Everything a change needs, by name. "make help" lists it.
# Two cores and Go are enough; nothing is installed outside this folder.

GO            ?= go
LINT_VERSION  := v2.15.0
TOOLS         := $(CURDIR)/.tools
# "make torture": how long (nothing is until every row has its count), which rows
# (nothing is all), how many cases of each (nothing is its count), and the seed that
# everything is drawn from.
FOR           ?=
ROWS          ?=
CASES         ?=
SEED          ?= 1
TORTURE_STATE ?= .torture.json
# How long each fuzz target runs in "make fuzz".
FUZZ_TIME     ?= 10s
# What "make bench" gets, see "snapstore bench run --help".
BENCH_FLAGS   ?=
# Go benchmarks to run in "make gobench", a regular expression, and how often.
BENCH         ?= .
BENCH_COUNT   ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo build test lint tools fmt race torture cross fuzz bench gobench cover clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## show the store at work on memory images of a real canister
	$(GO) run ./cmd/snapstore demo

build: ## build the command as bin/snapstore
	$(GO) build -trimpath -o bin/snapstore ./cmd/snapstore

test: ## vet and all tests, under five minutes
	$(GO) vet ./...
	$(GO) test -timeout 5m ./...
	$(GO) test -timeout 5m -tags weakhash -run WeakHash ./engine
	$(GO) test -timeout 5m -tags failpoint -run IsOvertaken ./engine
	$(GO) test -timeout 5m -tags failpoint -run 'TestReadersAreOvertaken|TestRows/orders' ./internal/testkit/realrows

lint: ## what golangci-lint finds; see .golangci.yml ("make tools" installs it)
	@lint=$$(PATH="$(TOOLS):$$PATH:$$($(GO) env GOPATH)/bin" command -v golangci-lint) || \
		{ echo "golangci-lint is not here: run \"make tools\""; exit 1; }; \
	"$$lint" run ./...

tools: $(TOOLS)/golangci-lint ## install golangci-lint into this folder

$(TOOLS)/golangci-lint:
	GOBIN="$(TOOLS)" $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

fmt: ## format all Go files
	@lint=$$(PATH="$(TOOLS):$$PATH:$$($(GO) env GOPATH)/bin" command -v golangci-lint) && "$$lint" fmt ./... || gofmt -w .

# What is concurrent in the engine; the rest of its tests are long and are not.
RACY := Limit|Load|Upload|Reader|Refusals|Collector|Limbo|Parallel|Concurrent|Racing|Close|Histories|Scrub|Lent|Guest|Verif
# What of the command is: each script is a process of its own, and slow to race.
RACY_COMMAND := Import|Assign|Progress|Output|Interrupt|Call

# What never runs two things at a time is left out: the rows of one process,
# crafted inputs, whose memory is bounded, and programs that are measured beside
# the engine.
race: ## the tests under the race detector, the long ones cut short
	$(GO) test -race -short -timeout 20m $$($(GO) list ./... | grep -v -e /engine$$ -e /cmd/ -e /testkit/rows$$ -e /testkit/hostile$$ -e /bench/peer$$)
	$(GO) test -race -short -timeout 20m -run '$(RACY_COMMAND)' ./cmd/...
	SNAPSTORE_STEPS=30 SNAPSTORE_CRASH_POINTS=50 SNAPSTORE_HISTORIES=6 $(GO) test -race -short -timeout 20m -run '$(RACY)' ./engine

# It goes on where it was when it is called again. "bin/snapstore-torture list"
# tells the rows; docs/reliability.md has the last full table. The tag is for the
# row "orders"; where no hook is set, a point costs one atomic load.
torture: ## the fault matrix: FOR=10m, ROWS=crash,flip, SEED=1
	$(GO) build -tags failpoint -o bin/snapstore-torture ./cmd/snapstore-torture
	bin/snapstore-torture $(if $(FOR),--for $(FOR)) $(if $(ROWS),--rows $(ROWS)) $(if $(CASES),--cases $(CASES)) --seed $(SEED) $(if $(TORTURE_STATE),--state $(TORTURE_STATE))

# What of the tests depends on the processor or the system, short enough for an
# emulator.
CROSS := ./internal/trackmem ./internal/pagehash ./internal/pagedelta ./internal/osfs ./chunk ./manifest

# These start processes. An emulator that forks while another of its threads
# holds one of its own locks leaves a child that waits for ever, and the parent
# with it: rarely, and then for good.
CROSS_SKIP := ^(TestRefusedSystemCalls|TestUnprivileged)$$

cross: ## build for other systems, and test on arm64 where qemu-user-static is here
	GOARCH=arm64 $(GO) vet ./...
	GOOS=darwin $(GO) build ./... && GOOS=windows $(GO) build ./internal/trackmem ./engine
	@if command -v qemu-aarch64-static >/dev/null; then \
		GOARCH=arm64 $(GO) test -short -timeout 10m -skip '$(CROSS_SKIP)' -exec "$$(command -v qemu-aarch64-static)" $(CROSS); \
	else echo "SKIPPED: qemu-user-static is not here, so nothing ran on arm64"; fi

fuzz: ## every fuzz target, FUZZ_TIME each
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_TIME) $$pkg; \
		done; \
	done

bench: build ## the engine beside the machine's limits and its peers; BENCH_FLAGS=--quick takes a minute
	bin/snapstore bench run --out bin/bench.json $(BENCH_FLAGS)
	bin/snapstore bench report bin/bench.json --output bin/bench-report

gobench: ## benchmarks of single packages, BENCH and BENCH_COUNT choose
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(BENCH_COUNT) ./...

cover: ## statement coverage of each package, from all tests
	$(GO) test -timeout 10m -coverprofile cover.out -coverpkg ./... ./... >/dev/null
	$(GO) tool cover -func cover.out | tail -n 1

clean: ## remove what the other targets made
	rm -rf bin cover.out .tools $(TORTURE_STATE)
	$(GO) clean -testcache

# The commands that people and CI share; each is what its name says. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

CARGO ?= cargo
TOOLS := $(CURDIR)/.cache/tools
DENY_VERSION := 0.20.2

.PHONY: bench-curves help demo build check fmt clippy layers deny envoy kubernetes helm prerequisites test test-all soak bench

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

# The same unoptimised build as the tests': a newcomer waits for one build, not for two.
demo: build envoy ## six workloads and their Envoys on this machine, checked with real requests
	$(CARGO) run --locked --quiet -- demo --junit target/junit/demo.xml $(DEMO)

build: ## the program, as the tests and the demo use it: target/debug/fairlead
	$(CARGO) build --locked

check: fmt clippy layers deny ## format, lints, the arrows between rooms, dependency policy

fmt:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --locked --all-targets -- -D warnings

layers:
	$(CARGO) test --locked --quiet --test layers

deny: $(TOOLS)/bin/cargo-deny
	$(TOOLS)/bin/cargo-deny --locked check bans licenses sources

$(TOOLS)/bin/cargo-deny:
	@# Unoptimised: it runs for a second, and takes minutes to build.
	CARGO_PROFILE_DEV_DEBUG=false $(CARGO) install cargo-deny@$(DENY_VERSION) --locked --debug --root $(TOOLS)

envoy: ## the pinned stock Envoy into .cache/envoy, unless ENVOY_BIN names one
	@conformance/prerequisites envoy

kubernetes: ## etcd, kube-apiserver and kube-controller-manager into .cache/kubernetes, built by Go, unless KUBEBUILDER_ASSETS names them
	@conformance/prerequisites kubernetes

helm: ## helm into .cache/helm, built by Go
	@conformance/prerequisites helm

prerequisites: envoy kubernetes helm ## all that the tests need besides Rust
	@conformance/prerequisites namespaces

test: build prerequisites ## every suite, large matrices sampled by a printed seed; JUnit in target/junit
	$(CARGO) run --locked --quiet --example tally

test-all: build prerequisites ## the same with every matrix in full and longer property runs
	FAIRLEAD_MATRIX=full PROPTEST_CASES=2048 $(CARGO) run --locked --quiet --example tally

soak: build prerequisites ## what takes long: ten minutes without the API server, under load
	FAIRLEAD_OUTAGE_SECONDS=600 $(CARGO) test --locked --quiet --test cluster -- without_the_api_server

# Such as BENCH='--proxies 500 --rounds 15'.
BENCH ?=

bench: prerequisites ## push latency and cost with simulated proxies, as a table; rows as JSON in target/bench.json
	$(CARGO) bench --locked --quiet --bench push -- $(BENCH)

bench-curves: prerequisites ## the same at growing sizes; pictures and rows in benches/results
	$(CARGO) bench --locked --quiet --bench push -- --curves benches/results --over tls $(BENCH)

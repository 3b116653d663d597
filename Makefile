# Entry points for people and for CI. A target says what it does after "##"; the work is in the scripts it calls.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export STREAMAGG_CACHE ?= $(HOME)/.cache/streamagg
export CARGO_TARGET_DIR ?= $(STREAMAGG_CACHE)/target

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

# On a laptop ---------------------------------------------------------------------------------------------------

# A directory of its own: the processor without RocksDB and librdkafka never replaces the whole one of `make binaries`.
LAPTOP_TARGET_DIR := $(STREAMAGG_CACHE)/target-laptop
LAPTOP := $(LAPTOP_TARGET_DIR)/release/streamagg-processor
TRACE := trace:config/data/azure-llm-inference-2023/conv.csv
TRAFFIC := generate:events=2000000,rate=5000,disorder=2000,late=0.001,bad=0.0005

.PHONY: run
run: ## Windows over a real trace and over generated LLM traffic, here and now
	@echo "Building the processor without RocksDB and librdkafka: about two minutes the first time, then seconds."
	@CARGO_TARGET_DIR=$(LAPTOP_TARGET_DIR) cargo build --release --locked -p streamagg-processor --no-default-features
	@echo; echo "A real trace: 19,366 requests of an LLM service (Azure, 2023), by the minute and over ten minutes."
	$(LAPTOP) run -f config/samples/azure-trace.yaml --input $(TRACE) --table
	@echo; echo "Generated LLM traffic: 2,000,000 events, out of order, some late, some broken."
	$(LAPTOP) run -f config/samples/quickstart.yaml --input $(TRAFFIC) --table
	@echo; echo "Next: results as lines, from your own events or from these:"
	@echo "  $(LAPTOP) generate events=3"
	@echo "  $(LAPTOP) run -f config/samples/quickstart.yaml --input FILE.jsonl --late late.jsonl --dead dead.jsonl"
	@echo "  docs/local.md says more; make cluster runs the same manifests on Kubernetes."

# Checks ----------------------------------------------------------------------------------------------------------

.PHONY: test lint fmt bench bench-core bench-operator coverage fuzz
test: ## All tests, last line "N passed, N failed" (STAGES="lint unit" for some of them)
	@tests/tools/prepare
	@tests/run $(STAGES)

lint: ## Format, clippy, licences, purity, documentation
	@tests/run lint deny purity docs

fmt: ## Format the Rust code
	cargo fmt --all

coverage: ## Line coverage of the engine, file by file; fails below 85 %
	@tests/tools/coverage

TARGET ?= event
DURATION ?= 60
fuzz: ## Fuzz one of manifest, event, expression, state, control on a nightly compiler (TARGET=event, DURATION=60 seconds)
	@tests/tools/fuzz $(TARGET) $(DURATION)

BENCH_EVENTS ?= 1000000
WORKLOADS ?=
FLINK ?= yes
# Numbers as in docs/performance.md; with some chosen only those on the broker run.
bench: ## Figures: one core, a local run, a real broker beside Flink (WORKLOADS="W2 W8", FLINK=no, BENCH_EVENTS=1000000)
	@$(if $(WORKLOADS),echo "not chosen: the engine alone and a local run",$(MAKE) --no-print-directory bench-core)
	@cargo build --release --locked --quiet -p streamagg-processor
	@echo "On a real broker:"
	@cargo run --release --locked --quiet -p streamagg-e2e --features broker --bin bench-broker -- $(BENCH_EVENTS) \
	  $(if $(WORKLOADS),--workloads "$(WORKLOADS)") $(if $(filter no,$(FLINK)),--no-flink)

bench-core: ## The part of bench without a broker
	@echo "The engine alone, one core, input in memory:"
	@cargo run --release --locked --quiet -p streamagg-tests --bin bench
	@tests/tools/bench-local $(BENCH_EVENTS)

AGGREGATIONS ?= 1000
bench-operator: ## Figures: the operator with AGGREGATIONS=1000 on a real API server (PHASES="idle change")
	@tests/tools/bench-operator $(AGGREGATIONS) $(if $(PHASES),--phases $(PHASES))

# Real parts on this machine -------------------------------------------------------------------------------------

.PHONY: cluster cluster-down kind-check kafka kafka-down binaries image
cluster: ## A Kubernetes cluster with Kafka and MinIO (PROVIDER=auto|local|kind, CLUSTER_NAME=streamagg)
	@e2e/cluster/cluster.sh up

cluster-down: ## Remove the cluster and everything in it
	@e2e/cluster/cluster.sh down

kind-check: ## Show, without Docker, that kind accepts our configuration
	cd e2e/cluster/kind/check && go test ./...

kafka: ## A Kafka broker on 127.0.0.1:9092
	@e2e/broker/kafka.sh start default

kafka-down: ## Stop that broker and remove its data
	@e2e/broker/kafka.sh delete default

# One at a time: built together their dependencies' features differ, and RocksDB would compile a second time.
binaries: ## Operator and processor, release build
	cargo build --release --locked -p streamagg-processor
	cargo build --release --locked -p streamagg-operator

image: ## The image localhost/streamagg:dev, loaded into the cluster when that is up
	@timeout 10 docker info >/dev/null 2>&1 || [ -n "$${OPERATOR:-}" ] || $(MAKE) --no-print-directory binaries # Docker compiles by itself
	@e2e/image/build.sh
	@e2e/image/load.sh

.PHONY: soak
KILLS ?= 200
soak: ## The crash harness for long: KILLS random kills (200), restores and faults of the broker, STREAMAGG_SEED for others
	cargo build --release --locked -p streamagg-processor
	STREAMAGG_KILLS=$(KILLS) cargo test --release --locked -p streamagg-e2e --features broker --test crash -- --nocapture

.PHONY: generate
generate: ## Definition, its copy in the chart, and reference from the API types
	@crds/generate.sh

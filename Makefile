# Entry points for people and for CI. A target says what it does after "##"; the work is in the scripts it calls.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export STREAMAGG_CACHE ?= $(HOME)/.cache/streamagg
export CARGO_TARGET_DIR ?= $(STREAMAGG_CACHE)/target

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

# Real parts on this machine -------------------------------------------------------------------------------------

.PHONY: cluster cluster-down kafka kafka-down binaries image
cluster: ## A Kubernetes cluster with Kafka and MinIO (PROVIDER=auto|local|kind, CLUSTER_NAME=streamagg)
	@e2e/cluster/cluster.sh up

cluster-down: ## Remove the cluster and everything in it
	@e2e/cluster/cluster.sh down

kafka: ## A Kafka broker on 127.0.0.1:9092
	@e2e/broker/kafka.sh start default

kafka-down: ## Stop that broker and remove its data
	@e2e/broker/kafka.sh delete default

binaries: ## Operator and processor, release build
	cargo build --release --locked -p streamagg-operator -p streamagg-processor

image: ## The image localhost/streamagg:dev, loaded into the cluster when that is up
	@timeout 10 docker info >/dev/null 2>&1 || $(MAKE) --no-print-directory binaries # Docker compiles by itself
	@e2e/image/build.sh
	@e2e/image/load.sh

.PHONY: generate
generate: ## Definition, its copy in the chart, and reference from the API types
	@crds/generate.sh

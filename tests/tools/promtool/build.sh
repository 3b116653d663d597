#!/usr/bin/env bash
# Builds promtool (pinned by go.mod) into the file given as the first argument. Cold about 2 minutes on two cores.
set -euo pipefail
out=$(realpath -m "${1:?usage: build.sh OUTPUT_FILE}")
cd "$(dirname "${BASH_SOURCE[0]}")"
# Without the service discoveries: it only checks rules, and is built in half the time.
CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags remove_all_sd -ldflags '-s -w' -o "$out.new" github.com/prometheus/prometheus/cmd/promtool
mv "$out.new" "$out"

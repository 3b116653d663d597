#!/usr/bin/env bash
# Writes what is generated from the API types: the definition (and the chart's copy of it) and the reference.
# The library reads the definition when it is built, so a first run after a change builds with the old one; that is
# harmless, crdgen does not look at it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cargo run --quiet -p streamagg-crds --bin crdgen -- crd >"$out/crd"
cargo run --quiet -p streamagg-crds --bin crdgen -- reference >"$out/reference"
definition=streamaggregations.streamagg.io.yaml
mkdir -p crds/generated charts/streamagg/files docs
# Only what changed is written, so that nothing is built again without need.
cmp -s "$out/crd" "crds/generated/$definition" || cp "$out/crd" "crds/generated/$definition"
cmp -s "$out/crd" "charts/streamagg/files/$definition" || cp "$out/crd" "charts/streamagg/files/$definition"
cmp -s "$out/reference" docs/reference.md || cp "$out/reference" docs/reference.md

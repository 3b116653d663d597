#!/usr/bin/env bash
# Writes what is generated from the API types: the definitions (and the chart's copies of them) and the reference.
# The library reads the definition when it is built, so a first run after a change builds with the old one; that is
# harmless, crdgen does not look at it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cargo run --quiet -p streamagg-crds --bin crdgen -- crd >"$out/crd"
cargo run --quiet -p streamagg-crds --bin crdgen -- checkpoint-crd >"$out/checkpoint-crd"
cargo run --quiet -p streamagg-crds --bin crdgen -- reference >"$out/reference"
mkdir -p crds/generated charts/streamagg/files docs
# Only what changed is written, so that nothing is built again without need.
put() { cmp -s "$out/$1" "$2" || cp "$out/$1" "$2"; }
for directory in crds/generated charts/streamagg/files; do
  put crd "$directory/streamaggregations.streamagg.io.yaml"
  put checkpoint-crd "$directory/streamcheckpoints.streamagg.io.yaml"
done
put reference docs/reference.md

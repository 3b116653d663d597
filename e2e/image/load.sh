#!/usr/bin/env bash
# Imports the image archive into the cluster (CLUSTER_NAME, default streamagg) unless it is there already.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/process.sh
source "$here/../cluster/process.sh"
cache=${STREAMAGG_CACHE:-$HOME/.cache/streamagg}
archive=$cache/image/streamagg.tar
cluster=$cache/cluster/${CLUSTER_NAME:-streamagg}
[ -f "$archive" ] || die "no image to load: run make image"
if [ ! -f "$cluster/complete" ]; then
  say "no cluster is up: make cluster will load the image"
elif cmp -s "$archive.stamp" "$cluster/image.stamp"; then
  say "the cluster has this image already"
else
  "$here/../cluster/cluster.sh" load "$archive" >&2
  cp "$archive.stamp" "$cluster/image.stamp"
fi

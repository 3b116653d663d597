#!/usr/bin/env bash
# Starts a real kube-apiserver on loopback, judges every case of this directory with it, and stops it again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
server="$here/../../e2e/cluster/apiserver.sh"
name=crds-$$
trap '"$server" stop "$name" >/dev/null 2>&1 || true' EXIT
out=$("$server" start "$name" --no-controllers)
KUBECONFIG_API=$(sed -n 's/^KUBECONFIG=//p' <<<"$out" | tail -n 1)
[ -n "$KUBECONFIG_API" ] || { echo "apiserver.sh printed no KUBECONFIG: $out" >&2; exit 1; }
export KUBECONFIG_API
cargo test -p streamagg-crds --test apiserver "$@"

#!/usr/bin/env bash
# Programs the cluster needs beyond Debian's: built from pinned Go modules into $STREAMAGG_CACHE/bin, once.
# usage: tools.sh node|coredns|minio|fake-gcs-server|azurite|helm|kubectl|promtool|gitops...   prints the path of each, building what is missing or outdated
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=process.sh
source "$here/process.sh"
bin=${STREAMAGG_CACHE:-$HOME/.cache/streamagg}/bin

helm_version=v3.22.0
# MinIO's releases are no semantic versions: this is the module's newest commit.
minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
fake_gcs_version=v1.56.1
azurite_version=3.37.0

# ensure NAME STAMP HINT COMMAND...: runs COMMAND unless bin/NAME was built from STAMP.
ensure() {
  local name=$1 stamp=$2 hint=$3 began
  shift 3
  if [ ! -x "$bin/$name" ] || [ "$(cat "$bin/.$name.stamp" 2>/dev/null)" != "$stamp" ]; then
    command -v go >/dev/null || die "go 1.25 or newer is needed to build $name"
    say "building $name ($hint the first time) ..."
    began=$(now_ms)
    "$@" >"$bin/.$name.log" 2>&1 || {
      tail -n 20 "$bin/.$name.log" >&2
      die "$name could not be built; see $bin/.$name.log"
    }
    echo "$stamp" >"$bin/.$name.stamp"
    say "built $name in $((($(now_ms) - began) / 1000)) s"
  fi
  echo "$bin/$name"
}

# module NAME HINT [PARENT]: a Go module of this directory (or of PARENT) with its own build.sh.
module() {
  local source=${3:-$here}/$1 files
  files=("$source"/{go.mod,go.sum,build.sh})
  compgen -G "$source/*.go" >/dev/null && files+=("$source"/*.go)
  ensure "$1" "$(digest_of "${files[@]}")" "$2" "$source/build.sh" "$bin/$1"
}

install() { GOBIN=$bin CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "$1"; }

# Azurite, Microsoft's own server of the Azure protocol for tests, is a Node program.
install_azurite() {
  command -v npm >/dev/null || { echo "npm is needed to install azurite" >&2; return 1; }
  npm install --prefix "$bin/azurite.modules" --no-package-lock --no-audit --no-fund "azurite@$azurite_version"
  # shellcheck disable=SC2016
  printf '#!/bin/sh\nexec node "$(dirname "$0")/azurite.modules/node_modules/azurite/dist/src/blob/main.js" "$@"\n' >"$bin/azurite"
  chmod +x "$bin/azurite"
}

# kubectl: the machine's own when it has one; else the one inside the node binary.
kubectl_path() {
  local own
  if own=$(PATH=${PATH//$bin:/} type -P kubectl) && [ "$own" != "$bin/kubectl" ]; then
    echo "$own"
    return 0
  fi
  "${BASH_SOURCE[0]}" node >/dev/null
  # shellcheck disable=SC2016
  printf '#!/bin/sh\nexec "$(dirname "$0")/node" kubectl "$@"\n' >"$bin/kubectl"
  chmod +x "$bin/kubectl"
  echo "$bin/kubectl"
}

[ $# -gt 0 ] || die "usage: tools.sh node|coredns|minio|fake-gcs-server|azurite|helm|kubectl|promtool|gitops..."
for tool in "$@"; do
  # One lock a tool: whoever needs the node need not wait for MinIO.
  (
    lock "$bin/.lock/$tool" 3600
    case $tool in
      node) module node '6 minutes' ;;
      coredns) module coredns '2 minutes' ;;
      minio) ensure minio "$minio_version" '3 minutes' install "github.com/minio/minio@$minio_version" ;;
      fake-gcs-server)
        ensure fake-gcs-server "$fake_gcs_version" '3 minutes' install "github.com/fsouza/fake-gcs-server@$fake_gcs_version"
        ;;
      azurite) ensure azurite "$azurite_version" '1 minute' install_azurite ;;
      helm) ensure helm "$helm_version" '2 minutes' install "helm.sh/helm/v3/cmd/helm@$helm_version" ;;
      promtool) module promtool '2 minutes' "$here/../../tests/tools" ;;
      gitops) module gitops '4 minutes' "$here/../../tests/tools" ;;
      kubectl) kubectl_path ;;
      *) die "unknown tool $tool" ;;
    esac
  )
done

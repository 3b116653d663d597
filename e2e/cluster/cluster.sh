#!/usr/bin/env bash
# A test cluster on this machine with Kafka and MinIO in its reach. The rest of the project sees only a kubeconfig
# and two loopback addresses, whichever provider made it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=process.sh
source "$here/process.sh"

usage() {
  cat >&2 <<'T'
usage: cluster.sh up             start it, or repair what has ended; a running one is left alone
       cluster.sh down           stop it and remove everything of it
       cluster.sh status         prints running, broken or absent
       cluster.sh env            prints KUBECONFIG, KAFKA_BOOTSTRAP and S3_ENDPOINT of a running one
       cluster.sh load ARCHIVE   import an image (docker archive)
       cluster.sh tag IMAGE NEW  give an imported image a second name (an upgrade without another build)
PROVIDER=auto|local|kind (auto: kind when it and a Docker daemon are there, else local)
CLUSTER_NAME=streamagg: another name gives a cluster of its own, with other host ports, beside the first.
T
  exit 2
}

cache=${STREAMAGG_CACHE:-$HOME/.cache/streamagg}
name=${CLUSTER_NAME:-streamagg}
[[ $name =~ ^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$ ]] ||
  die "CLUSTER_NAME is $name; it must be at most 20 lower-case letters, digits and dashes"
dir=$cache/cluster/$name

# Host ports: fixed for the default name; another name moves all three by the same multiple of ten.
offset=0
[ "$name" = streamagg ] || offset=$((10 * (1 + $(printf %s "$name" | cksum | cut -d' ' -f1) % 90)))
# shellcheck disable=SC2034 # api_port is the providers'
readonly api_port=$((16443 + offset)) kafka_port=$((19092 + offset)) minio_port=$((19000 + offset))
readonly access_key=streamagg secret_key=streamagg-secret bucket=checkpoints

docker_works() { command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; }

choose_provider() {
  local chosen=${PROVIDER:-auto}
  # A cluster that exists already says what it is.
  if [ "$chosen" = auto ] && [ -f "$dir/provider" ]; then chosen=$(cat "$dir/provider"); fi
  case $chosen in
    auto) if command -v kind >/dev/null && docker_works; then echo kind; else echo local; fi ;;
    local | kind) echo "$chosen" ;;
    *) die "PROVIDER is $chosen; it must be auto, local or kind" ;;
  esac
}

kubectl_admin() { "$kubectl" --kubeconfig="$dir/kubeconfig" --request-timeout=10s "$@"; }

# create_bucket: an S3 request by hand, so that no S3 client is needed; 409 is "exists already, and yours".
create_bucket() {
  local answer
  answer=$(curl -s -o /dev/null -w '%{http_code}' --max-time 5 --aws-sigv4 aws:amz:us-east-1:s3 \
    --user "$access_key:$secret_key" -X PUT "http://127.0.0.1:$minio_port/$bucket")
  [ "$answer" = 200 ] || [ "$answer" = 409 ]
}

print_env() {
  [ -f "$dir/kubeconfig" ] || die "cluster $name is not up (make cluster)"
  echo "export KUBECONFIG=$1"
  echo "export KAFKA_BOOTSTRAP=127.0.0.1:$kafka_port"
  echo "export S3_ENDPOINT=http://127.0.0.1:$minio_port"
}

# kubeconfig_path: where people and tests find it; the default cluster's has a fixed place.
kubeconfig_path() {
  if [ "$name" = streamagg ]; then
    ln -sfn "$name/kubeconfig" "$cache/cluster/kubeconfig"
    echo "$cache/cluster/kubeconfig"
  else
    echo "$dir/kubeconfig"
  fi
}

command=${1:-}
provider=$(choose_provider)
# shellcheck source=local.sh
# shellcheck source=kind.sh
source "$here/$provider.sh"
case $command in
  up)
    began=$(now_ms)
    provider_prepare
    kubectl=$("$here/tools.sh" kubectl)
    lock "$dir"
    echo "$provider" >"$dir/provider"
    provider_up
    touch "$dir/complete"
    [ ! -f "$cache/image/streamagg.tar" ] || "$here/../image/load.sh"
    say "cluster $name ($provider) ready after $(($(now_ms) - began)) ms"
    print_env "$(kubeconfig_path)"
    ;;
  down)
    # The namespace is looked at too: somebody may have removed the directory of a running cluster.
    [ -d "$dir" ] || [ -e "/run/netns/$name" ] || { say "cluster $name is not there"; exit 0; }
    lock "$dir"
    provider_down
    rm -rf --one-file-system "${dir:?}"
    [ "$name" != streamagg ] || rm -f "$cache/cluster/kubeconfig"
    say "cluster $name is gone"
    ;;
  status)
    kubectl=$("$here/tools.sh" kubectl)
    provider_status
    ;;
  env) print_env "$(kubeconfig_path)" ;;
  load | tag)
    [ -e "$dir/complete" ] || die "cluster $name is not up (make cluster)"
    "provider_$command" "${@:2}"
    ;;
  *) usage ;;
esac

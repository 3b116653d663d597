# shellcheck shell=bash disable=SC2154 # the variables are cluster.sh's
# The kind provider: the same cluster in Docker, for machines that have it. Sourced by cluster.sh, whose variables
# it uses. Kafka and MinIO run as pods from public images.

fill_in() { sed "s/API_PORT/$api_port/; s/KAFKA_PORT/$kafka_port/; s/MINIO_PORT/$minio_port/" "$1"; }

provider_prepare() {
  command -v kind >/dev/null || die "kind is not installed; see https://kind.sigs.k8s.io, or use PROVIDER=local"
  docker_works || die "the Docker daemon does not answer; start it, or use PROVIDER=local"
  "$here/tools.sh" helm >/dev/null
}

# await_true SECONDS WHAT COMMAND...
await_true() {
  local deadline=$(($(now_ms) + $1 * 1000)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$(now_ms)" -lt "$deadline" ] || {
      kubectl_admin get pods -A >&2 || true
      die "$what"
    }
    sleep 0.5
  done
}

provider_up() {
  if kind get clusters 2>/dev/null | grep -qxF "$name"; then
    kind export kubeconfig --name "$name" --kubeconfig "$dir/kubeconfig" 2>/dev/null
  else
    fill_in "$here/kind/cluster.yaml" >"$dir/kind.yaml"
    kind create cluster --name "$name" --config "$dir/kind.yaml" --kubeconfig "$dir/kubeconfig" --wait 120s >&2
  fi
  fill_in "$here/kind/stores.yaml" | kubectl_admin apply --server-side --force-conflicts -f - >/dev/null
  local part
  for part in kafka minio; do
    "$kubectl" --kubeconfig="$dir/kubeconfig" -n $part rollout status "deployment/$part" --timeout=300s >&2 || {
      kubectl_admin -n $part describe pods >&2
      die "$part did not become ready"
    }
  done
  await_true 30 "MinIO does not answer on 127.0.0.1:$minio_port" create_bucket
}

provider_down() { kind delete cluster --name "$name" --kubeconfig "$dir/kubeconfig" >&2; }

provider_status() {
  if ! kind get clusters 2>/dev/null | grep -qxF "$name"; then
    echo absent
  elif kubectl_admin get --raw /readyz >/dev/null 2>&1; then
    echo running
  else
    echo broken
  fi
}

provider_load() { kind load image-archive "${1:?usage: cluster.sh load ARCHIVE}" --name "$name"; }

provider_tag() {
  docker exec "$name-control-plane" ctr -n k8s.io images tag --force \
    "${1:?usage: cluster.sh tag IMAGE NEW}" "${2:?usage: cluster.sh tag IMAGE NEW}"
}

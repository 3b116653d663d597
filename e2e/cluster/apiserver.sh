#!/usr/bin/env bash
# A real Kubernetes API without nodes, for tests: etcd, kube-apiserver and kube-controller-manager (garbage
# collection, StatefulSets, disruption budgets; pods stay Pending) on free loopback ports. Nothing else is needed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=process.sh
source "$here/process.sh"

usage() {
  cat >&2 <<'T'
usage: apiserver.sh start NAME [--no-controllers] [--audit]   prints KUBECONFIG=PATH (cluster administrator)
       apiserver.sh stop NAME                       stops it and removes everything stored in it
       apiserver.sh status NAME                     prints running or absent
State: $STREAMAGG_CACHE/apiserver/NAME, with a log of each component in log/. With --audit every request is written to
audit.log there (those for aggregations with their objects), and owner references that block deletion need their right.
T
  exit 2
}

cache=${STREAMAGG_CACHE:-$HOME/.cache/streamagg}
command=${1:-} name=${2:-} controllers=yes audit=()
[ -n "$command" ] && [ -n "$name" ] || usage
dir=$cache/apiserver/$name
for option in "${@:3}"; do
  case $option in
    --no-controllers) controllers=no ;;
    --audit)
      audit=(--audit-policy-file="$here/manifests/audit.yaml" --audit-log-path="$dir/audit.log"
        --enable-admission-plugins=OwnerReferencesPermissionEnforcement)
      ;;
    *) usage ;;
  esac
done
readonly components=(kube-controller-manager kube-apiserver etcd)

ready() { "$kubectl" --kubeconfig="$dir/kubeconfig" --request-timeout=2s get --raw "$1"; }

healthy() {
  local component
  [ -f "$dir/kubeconfig" ] || return 1
  for component in etcd kube-apiserver; do
    process_pid "$dir" "$component" >/dev/null || return 1
  done
  [ $controllers = no ] || process_pid "$dir" kube-controller-manager >/dev/null || return 1
  ready /readyz >/dev/null 2>&1
}

tear_down() {
  local component
  # etcd holds nothing worth a graceful end.
  for component in "${components[@]}"; do
    stop_process "$dir" "$component" 2
  done
  kill_marked "$dir"
}

start() {
  local began port etcd peer node pki="$dir/pki"
  began=$(now_ms)
  kubectl=$("$here/tools.sh" kubectl)
  node=$("$here/tools.sh" node)
  lock "$dir"
  if healthy; then
    say "apiserver $name already runs"
    echo "KUBECONFIG=$dir/kubeconfig"
    return 0
  fi
  tear_down
  rm -rf "$dir"/{etcd,pki,log,run,kubeconfig,audit.log}
  port=$(free_port)
  "$node" pki -dir "$pki" -server "https://127.0.0.1:$port" -san "127.0.0.1,localhost,10.96.0.1,kubernetes.default.svc"
  cp "$pki/admin.kubeconfig" "$dir/kubeconfig"
  mkdir -p "$dir/run"
  etcd="http://127.0.0.1:$(free_port)" peer="http://127.0.0.1:$(free_port)"
  start_process "$dir" etcd "$node" etcd --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
  start_process "$dir" kube-apiserver "$node" kube-apiserver --etcd-servers="$etcd" \
    --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port="$port" --endpoint-reconciler-type=none \
    --cert-dir="$dir/run" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --client-ca-file="$pki/ca.crt" --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/service-account.key" --service-account-signing-key-file="$pki/service-account.key" \
    --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC "${audit[@]}"
  await 180 "$dir" kube-apiserver ready /readyz
  if [ $controllers = yes ]; then
    # Started only now: before the roles are there it ends on refused requests.
    start_process "$dir" kube-controller-manager "$node" kube-controller-manager \
      --kubeconfig="$pki/controller-manager.kubeconfig" --use-service-account-credentials --leader-elect=false --kube-api-qps=500 --kube-api-burst=1000 \
      --service-account-private-key-file="$pki/service-account.key" --root-ca-file="$pki/ca.crt" --secure-port=0
    # The default service account shows that controllers are at work; pods of the namespace cannot be made without.
    await 30 "$dir" kube-controller-manager ready /api/v1/namespaces/default/serviceaccounts/default
  fi
  say "apiserver $name ready after $(($(now_ms) - began)) ms"
  echo "KUBECONFIG=$dir/kubeconfig"
}

case $command in
  start) start ;;
  stop) lock "$dir"; tear_down; rm -rf "${dir:?}"; say "apiserver $name stopped" ;;
  status)
    kubectl=$("$here/tools.sh" kubectl)
    if healthy; then echo running; else echo absent; fi
    ;;
  *) usage ;;
esac

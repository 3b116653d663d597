#!/usr/bin/env bash
# Starts a real kube-apiserver with its controllers on loopback, runs the operator against it as the ServiceAccount of the
# chart with the chart's rights, and stops it again. When all tests ran, the server's audit log shows that each right was
# used and none was lacking, and that Argo CD and kstatus saw each state of each aggregation as what it is.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..
cluster=$root/e2e/cluster
name=operator-$$
kubectl=$("$cluster/tools.sh" kubectl | tail -n 1)
helm=$("$cluster/tools.sh" helm | tail -n 1)
scratch=$(mktemp -d)
trap '"$cluster/apiserver.sh" stop "$name" >/dev/null 2>&1 || true; rm -rf "$scratch"' EXIT
out=$("$cluster/apiserver.sh" start "$name" --audit)
KUBECONFIG_API=$(sed -n 's/^KUBECONFIG=//p' <<<"$out" | tail -n 1)
[ -n "$KUBECONFIG_API" ] || { echo "apiserver.sh printed no KUBECONFIG: $out" >&2; exit 1; }
export KUBECONFIG_API KUBECONFIG=$KUBECONFIG_API KUBECTL=$kubectl

# install NAMESPACE VARIABLE [OPTION...]: the chart's rights, and in VARIABLE the kubeconfig of the ServiceAccount that has them.
install() {
  local namespace=$1 variable=$2 token
  "$kubectl" create namespace "$namespace" >/dev/null
  "$helm" template streamagg "$root/charts/streamagg" -n "$namespace" --kube-version 1.34.0 \
    -s templates/rbac.yaml -s templates/serviceaccount.yaml "${@:3}" | "$kubectl" apply -f - >/dev/null
  token=$("$kubectl" -n "$namespace" create token streamagg --duration=2h)
  declare -gx "$variable=$scratch/$namespace.kubeconfig"
  cp "$KUBECONFIG_API" "${!variable}"
  "$kubectl" --kubeconfig "${!variable}" config set-credentials operator --token="$token" >/dev/null
  "$kubectl" --kubeconfig "${!variable}" config set-context --current --user=operator >/dev/null
}
install streamagg-system KUBECONFIG_OPERATOR
install solo KUBECONFIG_SOLO --set watchNamespace=solo

cargo test -p streamagg-operator --test apiserver "$@"

# Some tests alone do not use every right.
if [ $# -eq 0 ]; then
  gitops=$("$cluster/tools.sh" gitops | tail -n 1)
  log=$(dirname "$KUBECONFIG_API")/audit.log
  unseen=(
    # No request shows it: the server asks for it when an owner reference that blocks deletion is written, as --audit has it.
    "streamagg.io streamaggregations/finalizers update"
  )
  "$gitops" rights "$root/charts/streamagg/files/rights.yaml" "$log" \
    system:serviceaccount:streamagg-system:streamagg "${unseen[@]}"
  "$gitops" law "$root/config/argocd/argocd-cm.yaml" "$log"
fi

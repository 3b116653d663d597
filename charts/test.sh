#!/usr/bin/env bash
# Installs the chart into a real API server (no nodes: pods stay Pending) in both modes, and checks what it grants,
# that a wrong value is refused by name, and that uninstalling leaves the definition and its objects.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cluster="$here/../e2e/cluster"
chart="$here/streamagg"
name=chart-$$
passed=0

fail() { echo "charts/test.sh: $*" >&2; exit 1; }
ok() { passed=$((passed + 1)); echo "ok   $*"; }

helm=$("$cluster/tools.sh" helm | tail -n 1)
kubectl=$("$cluster/tools.sh" kubectl | tail -n 1)
# Before the server is up, so that a failed start leaves nothing either.
trap '"$cluster/apiserver.sh" stop "$name" >/dev/null 2>&1 || true' EXIT
out=$("$cluster/apiserver.sh" start "$name" --no-controllers)
KUBECONFIG=$(sed -n 's/^KUBECONFIG=//p' <<<"$out" | tail -n 1)
[ -n "$KUBECONFIG" ] || fail "apiserver.sh printed no KUBECONFIG: $out"
export KUBECONFIG

# may SERVICE_ACCOUNT yes|no ARGUMENTS...: whether it may do that
may() {
  local account=$1 expected=$2 answer
  shift 2
  answer=$("$kubectl" auth can-i "$@" --as="system:serviceaccount:$account" 2>/dev/null || true)
  [ "$answer" = "$expected" ] || fail "$account: can-i $*: expected $expected, the server says $answer"
}

"$helm" lint --quiet "$chart"
ok "lint"

for wrong in image.tagg=x replicas=0 log.format=xml watchNamespace=Team_A; do
  if "$helm" template t "$chart" --kube-version 1.34.0 --set "$wrong" >/dev/null 2>"/tmp/$name.err"; then
    fail "--set $wrong was accepted"
  fi
  grep -q "${wrong%%[.=]*}" "/tmp/$name.err" || fail "--set $wrong: the message names no field: $(cat "/tmp/$name.err")"
done
rm -f "/tmp/$name.err"
ok "wrong values are refused by name"

"$helm" install streamagg "$chart" --namespace streamagg-system --create-namespace >/dev/null
"$kubectl" wait --for=condition=Established --timeout=60s crd/streamaggregations.streamagg.io >/dev/null
"$kubectl" -n streamagg-system get deployment/streamagg serviceaccount/streamagg role/streamagg-lease >/dev/null
ok "installs for all namespaces"

account=streamagg-system:streamagg
may $account yes watch streamaggregations.streamagg.io -A
may $account yes patch streamaggregations.streamagg.io --subresource=status -n team-a
may $account yes create statefulsets.apps -n team-a
may $account yes delete pods -n team-a
may $account yes create secrets -n team-a
may $account yes update leases.coordination.k8s.io/streamagg-operator -n streamagg-system
for refused in "update streamaggregations.streamagg.io" "list secrets" "create pods" "create pods --subresource=exec" \
  "create persistentvolumeclaims" "create roles.rbac.authorization.k8s.io" \
  "update leases.coordination.k8s.io"; do
  # shellcheck disable=SC2086 # several words
  may $account no $refused -n team-a
done
ok "grants what the operator needs and no more"

"$kubectl" create namespace team-a >/dev/null
"$kubectl" -n team-a apply -f "$here/../config/samples/quickstart.yaml" >/dev/null
"$helm" upgrade streamagg "$chart" --namespace streamagg-system --set replicas=2 >/dev/null
"$helm" uninstall streamagg --namespace streamagg-system >/dev/null 2>&1
"$kubectl" -n team-a get streamaggregation quickstart >/dev/null || fail "uninstalling deleted an aggregation"
ok "an upgrade and uninstalling leave the definition and its objects"

"$helm" install streamagg "$chart" --namespace team-a --set watchNamespace=team-a,crds.install=false >/dev/null
account=team-a:streamagg
may $account yes create statefulsets.apps -n team-a
may $account no create statefulsets.apps -n team-b
may $account no list streamaggregations.streamagg.io -A
[ -z "$("$kubectl" get clusterroles,clusterrolebindings -o name -l app.kubernetes.io/instance=streamagg)" ] ||
  fail "one namespace: rights in the whole cluster were created"
ok "one namespace needs a Role only"

echo "charts/test.sh: $passed passed, 0 failed"

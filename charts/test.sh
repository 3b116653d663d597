#!/usr/bin/env bash
# Installs the chart into a real API server (no nodes: pods stay Pending) in both modes, and checks what it grants,
# that a wrong value is refused by name, and that uninstalling leaves the definition and its objects; the alerts by their
# unit tests; and every manifest for Prometheus, kustomize, Argo CD and Flux against those projects' own definitions.
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
scratch=$(mktemp -d)
# Before the server is up, so that a failed start leaves nothing either.
trap '"$cluster/apiserver.sh" stop "$name" >/dev/null 2>&1 || true; rm -rf "$scratch"' EXIT
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

promtool=$("$cluster/tools.sh" promtool | tail -n 1)
(cd "$here/monitoring" && "$promtool" test rules alerts.test.yaml >/dev/null) || fail "alerts.test.yaml"
for alert in $(sed -n 's/.*- alert: //p' "$chart/files/alerts.yaml"); do
  grep -q "alertname=\"$alert\"" "$here/monitoring/alerts.test.yaml" || fail "alert $alert has no test"
done
ok "every alert fires when it should"

# Grafana's variables are no PromQL: they get values, and the expressions become rules that promtool reads.
python3 - "$chart/files/dashboard.json" >"$scratch/dashboard-rules.yaml" <<'T'
import json, sys
panels = json.load(open(sys.argv[1]))["panels"]
queries = [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel["targets"]]
rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
print(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
T
"$promtool" check rules "$chart/files/alerts.yaml" "$scratch/dashboard-rules.yaml" >/dev/null || fail "rules"
"$here/../tests/tools/metric-names" >/dev/null || fail "metrics"
ok "alerts and dashboard ask for metrics that exist"

"$here/render.sh" --check || fail "config/operator"
ok "the manifests without Helm are what the chart renders"

for wrong in image.tagg=x replicas=0 log.format=xml otlp.endpoint=collector watchNamespace=Team_A monitoring.rules.enable=true; do
  if "$helm" template t "$chart" --kube-version 1.34.0 --set "$wrong" >/dev/null 2>"$scratch/err"; then
    fail "--set $wrong was accepted"
  fi
  grep -q "${wrong%%[.=]*}" "$scratch/err" || fail "--set $wrong: the message names no field: $(cat "$scratch/err")"
done
ok "wrong values are refused by name"

"$helm" install streamagg "$chart" --namespace streamagg-system --create-namespace >/dev/null
"$kubectl" wait --for=condition=Established --timeout=60s crd/streamaggregations.streamagg.io crd/streamcheckpoints.streamagg.io >/dev/null
"$kubectl" -n streamagg-system get deployment/streamagg serviceaccount/streamagg role/streamagg-lease >/dev/null
ok "installs for all namespaces"

account=streamagg-system:streamagg
may $account yes watch streamaggregations.streamagg.io -A
may $account yes patch streamaggregations.streamagg.io --subresource=status -n team-a
may $account yes patch streamcheckpoints.streamagg.io -n team-a
may $account yes patch streamcheckpoints.streamagg.io --subresource=status -n team-a
may $account no create streamcheckpoints.streamagg.io -n team-a
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

"$kubectl" apply --server-side -k "$here/../crds/generated" >/dev/null 2>&1 || fail "crds/generated cannot be applied"
"$helm" install streamagg "$chart" --namespace team-a --set watchNamespace=team-a,crds.install=false >/dev/null
account=team-a:streamagg
may $account yes create statefulsets.apps -n team-a
may $account no create statefulsets.apps -n team-b
may $account no list streamaggregations.streamagg.io -A
[ -z "$("$kubectl" get clusterroles,clusterrolebindings -o name -l app.kubernetes.io/instance=streamagg)" ] ||
  fail "one namespace: rights in the whole cluster were created"
ok "one namespace needs a Role only"

# Other projects' definitions come with their Go modules, whose sums the checksum database holds.
definitions() {
  local directory
  directory=$(cd "$scratch" && go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  shift
  for file in "$@"; do
    "$kubectl" apply --server-side -f "$directory/$file" >/dev/null || fail "$file"
  done
}
prometheus=example/prometheus-operator-crd/monitoring.coreos.com
definitions github.com/prometheus-operator/prometheus-operator@v0.85.0 ${prometheus}_podmonitors.yaml ${prometheus}_prometheusrules.yaml
definitions github.com/argoproj/argo-cd/v3@v3.5.7 manifests/crds/application-crd.yaml
definitions github.com/fluxcd/kustomize-controller@v1.9.6 config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml
definitions github.com/fluxcd/source-controller@v1.9.6 config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml
"$kubectl" wait --for=condition=Established --timeout=60s crd --all >/dev/null

for namespace in streamagg-system argocd flux-system; do
  "$kubectl" create namespace "$namespace" >/dev/null 2>&1 || true
done
# judged DESCRIPTION COMMAND...: the manifests that COMMAND prints, by the server and with unknown fields refused.
judged() {
  "${@:2}" >"$scratch/manifests.yaml" || fail "$1: $2 failed"
  "$kubectl" apply --server-side --force-conflicts --dry-run=server --validate=strict -f "$scratch/manifests.yaml" \
    >"$scratch/out" 2>&1 || fail "$1: $(cat "$scratch/out")"
  ok "valid: $1 ($(wc -l <"$scratch/out") objects)"
}
all=monitoring.podMonitors.enabled=true,monitoring.rules.enabled=true,monitoring.dashboard.enabled=true
render=("$helm" template streamagg "$chart" --kube-version 1.34.0 --set "$all")
judged "chart with monitoring" "${render[@]}" -n streamagg-system
judged "chart with every value set" "${render[@]}" -n streamagg-system -f "$here/monitoring/values-full.yaml"
judged "chart for one namespace" "${render[@]}" -n team-a --set watchNamespace=team-a
judged "config/operator" "$kubectl" kustomize "$here/../config/operator"
for directory in argocd flux checkpoint; do
  for file in "$here/../config/$directory"/*.yaml; do
    judged "config/$directory/$(basename "$file")" cat "$file"
  done
done

gitops=$("$cluster/tools.sh" gitops | tail -n 1)
"$gitops" states "$here/../config/argocd/argocd-cm.yaml" "$here/../tests/tools/gitops/states.yaml" >"$scratch/out" ||
  fail "$(cat "$scratch/out")"
ok "Argo CD and Flux see every state as it is: $(tail -n 1 "$scratch/out")"

echo "charts/test.sh: $passed passed, 0 failed"

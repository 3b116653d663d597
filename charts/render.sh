#!/usr/bin/env bash
# Renders the chart's defaults to config/operator/operator.yaml, for those who do without Helm. --check only compares.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
helm=$("$root/e2e/cluster/tools.sh" helm | tail -n 1)
file=$root/config/operator/operator.yaml
rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT
"$helm" template streamagg "$root/charts/streamagg" --namespace streamagg-system --kube-version 1.34.0 --set crds.install=false |
  sed -e '/^ *app.kubernetes.io\/managed-by: Helm$/d' -e '/^ *helm.sh\/chart: /d' -e '/^# Source: /d' >"$rendered"
if [ "${1:-}" = --check ]; then
  diff -u "$file" "$rendered" || { echo "$file is out of date: run charts/render.sh"; exit 1; }
else
  cp "$rendered" "$file"
fi

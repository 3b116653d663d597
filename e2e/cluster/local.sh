# shellcheck shell=bash disable=SC2154 # the variables are cluster.sh's
# The local provider: a real one-node cluster from the node binary, containerd and runc, in a network namespace
# (/run/netns/NAME) and a mount namespace (kept by the process "holder") of its own, so that pod and service
# addresses exist nowhere else and no mount outlives it. Sourced by cluster.sh, whose variables it uses.

readonly node_name=node-1 node_address=172.31.255.1 cgroup=streamagg-cluster-$name netns=/run/netns/$name
readonly processes=(kubelet kube-proxy kube-scheduler kube-controller-manager forward provisioner coredns minio containerd kube-apiserver etcd)

# provider_prepare: what the machine must have; installs what is missing.
provider_prepare() {
  [ "$(id -u)" = 0 ] || die "the local provider makes namespaces and cgroups: run it as root, or use PROVIDER=kind"
  local missing=() pair
  for pair in containerd:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins iptables:iptables \
    conntrack:conntrack ip:iproute2 nsenter:util-linux curl:curl gcc:gcc java:openjdk-17-jre-headless mvn:maven; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || die "missing: ${missing[*]}"
    say "installing ${missing[*]} (apt-get)"
    # Debian would start a containerd of its own; nobody needs it.
    { apt-get update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
      >"$cache/apt.log" 2>&1 || { tail -n 20 "$cache/apt.log" >&2; die "apt-get failed; see $cache/apt.log"; }
  fi
  "$here/tools.sh" node coredns minio >/dev/null
  (
    lock "$cache/image"
    [ "$cache/image/pause.tar" -nt "$here/pause/pause.c" ] || "$here/pause/build.sh" "$cache/image/pause.tar"
  )
}

# inside COMMAND...: in the node's two namespaces.
inside() { nsenter --net="$netns" --mount="/proc/$(process_pid "$dir" holder)/ns/mnt" -- "$@"; }

start_inside() {
  local component=$1
  shift
  start_process "$dir" "$component" \
    nsenter --net="$netns" --mount="/proc/$(process_pid "$dir" holder)/ns/mnt" -- "$@"
}

api() { kubectl_admin get --raw "$1"; }

containers() { ctr -a "$dir/run/containerd.sock" -n k8s.io "$@"; }

make_namespaces() {
  ip netns add "$name"
  ip -n "$name" link set lo up
  # Both ends stay inside: an interface with an address and a default route is all the components ask for.
  ip -n "$name" link add eth0 type veth peer name eth0p
  ip -n "$name" link set eth0p up
  ip -n "$name" addr add "$node_address/24" dev eth0
  ip -n "$name" link set eth0 up
  ip -n "$name" route add default dev eth0
  nsenter --net="$netns" sysctl -qw net.ipv4.ip_forward=1
  start_process "$dir" holder unshare --mount --propagation private sleep infinity
  await 5 "$dir" holder own_mounts
  # Paths that Kubernetes and CNI have built in become directories of this cluster.
  local pair
  for pair in kubelet-plugins:/var/lib/kubelet cni-cache:/var/lib/cni; do
    mkdir -p "$dir/${pair%%:*}" "${pair##*:}"
    inside mount --bind "$dir/${pair%%:*}" "${pair##*:}"
  done
  # The machine's own DNS server is out of reach from here.
  echo "nameserver $node_address" >"$dir/node-resolv.conf"
  inside mount --bind "$dir/node-resolv.conf" /etc/resolv.conf
}

# own_mounts: unshare has happened.
own_mounts() { [ "$(readlink "/proc/$(process_pid "$dir" holder)/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ]; }

# make_cgroup: the parent of every pod, so that two clusters do not see each other's pods.
make_cgroup() {
  local hierarchy controller
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
      echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true
    done
    mkdir -p "/sys/fs/cgroup/$cgroup"
  else
    for hierarchy in /sys/fs/cgroup/*/; do mkdir -p "$hierarchy$cgroup" 2>/dev/null || true; done
  fi
}

write_configuration() {
  mkdir -p "$dir"/{run,log,cni,minio}
  : >"$dir/resolv.conf"
  cat >"$dir/containerd.toml" <<T
version = 2
root = "$dir/containerd"
state = "$dir/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "$dir/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Without CAP_SYS_RESOURCE (small virtual machines) a lower score than one's own is refused.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  Root = "$dir/run/runc"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "$dir/cni"
T
  cat >"$dir/cni/10-pods.conflist" <<T
{"cniVersion":"0.4.0","name":"pods","plugins":[
  {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"hairpinMode":true,"ipam":{"type":"host-local",
   "dataDir":"$dir/ipam","ranges":[[{"subnet":"10.244.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
  {"type":"portmap","capabilities":{"portMappings":true}}]}
T
  cat >"$dir/kubelet.yaml" <<T
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $dir/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failSwapOn: false
failCgroupV1: false
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$dir/run/containerd.sock
resolvConf: $dir/resolv.conf
podLogsDir: $dir/podlogs
# A test machine's disk may be nearly full: only memory evicts, and images are never collected.
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
enforceNodeAllocatable: []
serializeImagePulls: false
T
  cat >"$dir/Corefile" <<T
.:53 {
  bind $node_address
  ready 127.0.0.1:8181
  errors
  cache 5
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig $dir/pki/coredns.kubeconfig
    pods insecure
  }
}
T
}

start_forward() {
  start_process "$dir" forward "$bin/node" forward "$netns" "127.0.0.1:$api_port=$node_address:6443" \
    "127.0.0.1:$kafka_port=127.0.0.1:$kafka_port" "127.0.0.1:$minio_port=127.0.0.1:9000"
}

start_api() {
  start_inside etcd "$bin/node" etcd --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
  start_inside kube-apiserver "$bin/node" kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$node_address" --secure-port=6443 --cert-dir="$dir/run" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$pki/service-account.key" \
    --service-account-signing-key-file="$pki/service-account.key" --service-cluster-ip-range=10.96.0.0/16 \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --kubelet-preferred-address-types=InternalIP
}

# start_controllers: all that ends at once when the API server does not answer yet.
start_controllers() {
  local config
  config=$pki/controller-manager.kubeconfig
  start_inside kube-controller-manager "$bin/node" kube-controller-manager --kubeconfig="$config" \
    --authentication-kubeconfig="$config" --authorization-kubeconfig="$config" --use-service-account-credentials \
    --service-account-private-key-file="$pki/service-account.key" --root-ca-file="$pki/ca.crt" --cert-dir="$dir/run" \
    --leader-elect=false --kube-api-qps=500 --kube-api-burst=1000
  config=$pki/scheduler.kubeconfig
  start_inside kube-scheduler "$bin/node" kube-scheduler --kubeconfig="$config" --authentication-kubeconfig="$config" \
    --authorization-kubeconfig="$config" --cert-dir="$dir/run" --leader-elect=false
  start_inside kubelet "$bin/node" kubelet --config="$dir/kubelet.yaml" --kubeconfig="$pki/kubelet.kubeconfig" \
    --hostname-override="$node_name" --node-ip="$node_address" --root-dir="$dir/kubelet" --cert-dir="$dir/kubelet/pki"
  start_inside kube-proxy "$bin/node" kube-proxy --kubeconfig="$pki/proxy.kubeconfig" --cluster-cidr=10.244.0.0/16 \
    --hostname-override="$node_name" --proxy-mode=iptables --conntrack-max-per-core=0
  mkdir -p "$dir/volumes"
  start_inside provisioner "$bin/node" provisioner "$pki/admin.kubeconfig" "$dir/volumes"
  start_inside coredns "$bin/coredns" -conf "$dir/Corefile"
}

start_stores() {
  MINIO_ROOT_USER=$access_key MINIO_ROOT_PASSWORD=$secret_key MINIO_BROWSER=off MINIO_UPDATE=off \
    start_inside minio "$bin/minio" server --quiet --address 0.0.0.0:9000 "$dir/minio"
  "$here/../broker/kafka.sh" start "cluster-$name" --dir "$dir/kafka" --port "$kafka_port" --netns "$netns" \
    --inside kafka.kafka.svc:9092 >/dev/null 2>"$dir/log/kafka-start.log"
}

node_ready() {
  [ "$(kubectl_admin get node "$node_name" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]
}

# apply: quick and quiet; server-side so that a repair changes nothing.
apply_manifest() {
  sed "s/NODE_ADDRESS/$node_address/" "$here/manifests/local.yaml" |
    kubectl_admin apply --server-side --force-conflicts -f - >"$dir/log/apply.log" 2>&1
}

dns_answers() { inside bash -c ': <>/dev/tcp/127.0.0.1/8181' && inside curl -sf --max-time 2 http://127.0.0.1:8181/ready; }

all_alive() {
  local component
  for component in holder "${processes[@]}"; do process_pid "$dir" "$component" >/dev/null || return 1; done
  process_pid "$dir/kafka" kafka >/dev/null && [ -e "$netns" ]
}

provider_up() {
  bin=$cache/bin
  pki=$dir/pki
  refuse_foreign
  if [ -e "$dir/complete" ] && all_alive && api /readyz >/dev/null 2>&1 && node_ready; then
    return 0
  fi
  if [ ! -e "$dir/complete" ] || ! process_pid "$dir" holder >/dev/null || [ ! -e "$netns" ]; then
    provider_down
    find "$dir" -mindepth 1 -maxdepth 1 ! -name lock ! -name provider -exec rm -rf --one-file-system {} +
    make_namespaces
    make_cgroup
    write_configuration
    "$bin/node" pki -dir "$pki" -node "$node_name" -server "https://$node_address:6443" \
      -external-server "https://127.0.0.1:$api_port" \
      -san "$node_address,127.0.0.1,localhost,10.96.0.1,kubernetes,kubernetes.default,kubernetes.default.svc,kubernetes.default.svc.cluster.local"
    cp "$pki/external.kubeconfig" "$dir/kubeconfig"
  else
    say "repairing cluster $name"
  fi
  start_forward
  start_api
  start_inside containerd containerd -c "$dir/containerd.toml"
  local stores
  start_stores &
  stores=$!
  await 60 "$dir" kube-apiserver api /readyz
  await 20 "$dir" containerd containers version
  containers images import "$cache/image/pause.tar" >"$dir/log/import.log" 2>&1 ||
    fail_component "$dir" import "the pause image could not be imported"
  start_controllers
  apply_manifest || fail_component "$dir" apply "the manifest was refused"
  await 60 "$dir" kubelet node_ready
  await 20 "$dir" coredns dns_answers
  await 20 "$dir" minio create_bucket
  wait "$stores" || fail_component "$dir" kafka-start "kafka or minio did not start"
  await 30 "$dir" kube-controller-manager api /api/v1/namespaces/default/serviceaccounts/default
}

# pod_pids: of every container of this cluster, found by cgroup (which may vanish while being read).
pod_pids() { find /sys/fs/cgroup -path "*/$cgroup/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un || true; }

kill_pods() {
  local pids tries
  for ((tries = 0; tries < 100; tries++)); do
    pids=$(pod_pids)
    [ -n "$pids" ] || return 0
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null || true
    sleep 0.05
  done
  die "pods of $name cannot be killed: processes $(echo "$pids" | tr '\n' ' ')"
}

remove_cgroup() {
  local tries
  # A cgroup is busy for a moment after its last process has gone.
  for ((tries = 0; tries < 50; tries++)); do
    find /sys/fs/cgroup -depth -type d -path "*/$cgroup*" \( -name "$cgroup" -o -path "*/$cgroup/*" \) -exec rmdir {} + 2>/dev/null || true
    [ -n "$(find /sys/fs/cgroup -maxdepth 2 -type d -name "$cgroup")" ] || return 0
    sleep 0.1
  done
  die "the cgroup $cgroup cannot be removed"
}

# refuse_foreign: the same name under another STREAMAGG_CACHE is somebody else's cluster, not ours to touch.
refuse_foreign() {
  [ -e "$netns" ] || return 0
  local pid owner
  for pid in $(ip netns pids "$name"); do
    owner=$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | sed -n 's/^STREAMAGG_PROCESS=//p') || continue
    case $owner in
      '' | "$dir"/*) ;;
      *) die "a cluster $name of ${owner%/*} is running: choose another CLUSTER_NAME, or stop it with its own STREAMAGG_CACHE" ;;
    esac
  done
}

# provider_down: needs nothing of the cluster to be alive, nor its files to be whole.
provider_down() {
  local file sockets
  refuse_foreign
  # The kubelet first, or it would start again what is being ended. Nothing here is worth a graceful end.
  stop_process "$dir" kubelet 0
  kill_pods
  # The shims' sockets lie outside the directory; their addresses are written in it.
  sockets=$(cat "$dir"/run/containerd/io.containerd.runtime.v2.task/k8s.io/*/address 2>/dev/null | sed 's,unix://,\n,g') || true
  kill_marked "$dir"
  kill_pods
  for file in $sockets; do
    case $file in /run/containerd/s/*) rm -f "$file" ;; esac
  done
  [ ! -e "$netns" ] || ip netns del "$name"
  remove_cgroup
  # Mounts vanish with the mount namespace, that is with its last process. One that is left shows a mistake.
  ! grep -F " $dir/" /proc/self/mountinfo >&2 || die "mounts are left under $dir"
}

provider_status() {
  bin=$cache/bin
  if [ ! -d "$dir" ]; then
    echo absent
  elif [ -e "$dir/complete" ] && all_alive && api /readyz >/dev/null 2>&1 && node_ready; then
    echo running
  else
    echo broken
  fi
}

provider_load() { containers images import "${1:?usage: cluster.sh load ARCHIVE}"; }

provider_tag() { containers images tag --force "${1:?usage: cluster.sh tag IMAGE NEW}" "${2:?usage: cluster.sh tag IMAGE NEW}"; }

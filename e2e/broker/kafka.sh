#!/usr/bin/env bash
# A real Apache Kafka (KRaft, every process is broker and controller) from Maven's jars, for tests and laptops: one
# broker, or several of one cluster.
# Everything listens on loopback. Automatic topic creation is off.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/process.sh
source "$here/../cluster/process.sh"

usage() {
  cat >&2 <<'T'
usage: kafka.sh start NAME [--port PORT] [--secured] [--brokers N] [--session-ms MS] [--set NAME=VALUE]... [--dir DIR]
                                start, or start again with the same ports, rights and data
       kafka.sh stop NAME       ask it to end; the data stay
       kafka.sh delete NAME     stop and remove the data
       kafka.sh kill NAME [NODE]       SIGKILL
       kafka.sh pause NAME [NODE]      SIGSTOP
       kafka.sh continue NAME [NODE]   SIGCONT
       kafka.sh status NAME     prints running, paused, stopped or absent; of several brokers NODE and that, a line each
       kafka.sh env NAME        prints where it listens
       kafka.sh topic HOST:PORT TOPIC PARTITIONS   creates a topic on any broker, unless it is there
A broker that was not heard of for --session-ms (15000) is taken for dead, and is let back in no sooner after SIGKILL.
--set gives a new broker a setting of Kafka's beside those below or in the place of one; it keeps it on every later start.
start prints KAFKA_BOOTSTRAP=HOST:PORT, where a client has all rights. With --brokers 2 to 9 there are so many processes,
nodes 1 to N of one cluster, whose addresses come with commas between them; topics have min(N, 3) replicas, of which all
but one must have a record. kill, pause and continue take the number of a node, else all. start starts the nodes that do
not run. With --secured there are access control lists and
  KAFKA_SASL_BOOTSTRAP=HOST:PORT      SASL PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512: users admin (password admin-secret,
                                      all rights) and limited (password limited-secret, only what it is granted)
  KAFKA_SASL_TLS_BOOTSTRAP=HOST:PORT  the same over TLS
  KAFKA_TLS_BOOTSTRAP=HOST:PORT       TLS without a user, all rights
  KAFKA_MTLS_BOOTSTRAP=HOST:PORT      TLS, a client's certificate is required; CN=streamagg has all rights
  KAFKA_TLS_DIR=DIR                   ca.crt, client.crt and client.key of CN=streamagg, other-ca.crt that signed nothing
Without --port the broker named default takes 9092, others a free port (KAFKA_PORT overrides both).
Data: --dir or KAFKA_DIR, else $STREAMAGG_CACHE/kafka/brokers/NAME. KAFKA_JAVA_OPTS: further options of the JVM.
T
  exit 2
}

cache=${STREAMAGG_CACHE:-$HOME/.cache/streamagg}/kafka
command=${1:-} name=${2:-}
[ -n "$command" ] && [ -n "$name" ] || usage
shift 2
dir=${KAFKA_DIR:-$cache/brokers/$name}
if [ "$command" = topic ]; then
  [ $# = 2 ] || usage
  topic=$1 partitions=$2 dir=$cache
  shift 2
fi
only_node=''
if [[ "$command ${1:-}" =~ ^(kill|pause|continue)\ [1-9]$ ]]; then
  only_node=$1
  shift
fi
port=${KAFKA_PORT:-}
secured=no brokers='' session_ms='' settings=''
# The cluster's bring-up sets these three: the namespace to run in, and what pods are told to connect to.
netns='' inside_port='' inside_name=''
while [ $# -gt 0 ]; do
  case $1 in
    --port) port=${2:?--port needs a number}; shift 2 ;;
    --dir) dir=${2:?--dir needs a directory}; shift 2 ;;
    --secured) secured=yes; shift ;;
    --session-ms) session_ms=${2:?--session-ms needs a number}; shift 2 ;;
    --set) settings+=${2:?--set needs NAME=VALUE}$'\n'; shift 2 ;;
    --brokers) brokers=${2:?--brokers needs a number}; shift 2 ;;
    --netns) netns=${2:?--netns needs a file}; shift 2 ;;
    --inside) inside_name=${2:?--inside needs NAME:PORT}; inside_port=${inside_name##*:}; shift 2 ;;
    *) usage ;;
  esac
done
[[ ${session_ms:-1} =~ ^[0-9]+$ ]] || die "--session-ms $session_ms: a number of milliseconds is needed"
[[ ${brokers:-1} =~ ^[1-9]$ ]] || die "--brokers $brokers: 1 to 9 are possible"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

# broker_count: as it was when the data were made, else as asked for.
broker_count() {
  local count=${brokers:-1}
  [ ! -f "$dir/ports" ] || count=$(sed -n 's/^KAFKA_BROKERS_CHOSEN=//p' "$dir/ports")
  echo "${count:-1}"
}
[ "${only_node:-1}" -le "$(broker_count)" ] || die "$name has no node $only_node but $(broker_count) broker(s)"

# nodes: numbers of the nodes that a command is about.
nodes() { if [ -n "$only_node" ]; then echo "$only_node"; else seq "$(broker_count)"; fi; }

# node_dir NODE: where its data, settings and log are; a broker that is alone has the whole directory.
node_dir() { if [ "$(broker_count)" = 1 ]; then echo "$dir"; else echo "$dir/node-$1"; fi; }

# title NODE: what messages call it.
title() { if [ "$(broker_count)" = 1 ]; then echo "kafka $name"; else echo "kafka $name, node $1"; fi; }

in_namespace() {
  if [ -n "$netns" ]; then nsenter --net="$netns" "$@"; else "$@"; fi
}

# fetch_jars: the classpath, once per version of pom.xml.
fetch_jars() {
  local stamp
  stamp=$(digest_of "$here/pom.xml")
  [ "$(cat "$cache/libs.stamp" 2>/dev/null)" = "$stamp" ] && return 0
  command -v mvn >/dev/null || die "mvn is needed to fetch Kafka (Debian: apt-get install maven)"
  say "fetching Kafka's jars (54 MB) ..."
  rm -rf "$cache/libs" "$cache"/template* "$cache/classes.jsa"
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$cache/libs" >"$cache/maven.log" 2>&1 || {
    tail -n 20 "$cache/maven.log" >&2
    die "maven could not fetch Kafka; see $cache/maven.log"
  }
  echo "$stamp" >"$cache/libs.stamp"
}

classpath() {
  local jars=("$cache"/libs/*.jar) IFS=:
  echo "${jars[*]}"
}

# Only warnings are worth reading in a test's log.
log_options=(-Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true
  -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS)

# format_template: a formatted, empty data directory, copied for each new broker: formatting takes a JVM's start. It
# knows the users of SCRAM, who are of use only where a listener asks for one.
template=$cache/template-with-users
format_template() {
  [ -f "$template/meta.properties" ] && return 0
  local work=$cache/template.new user mechanism users=()
  for user in admin limited; do
    for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
      users+=(--add-scram "$mechanism=[name=$user,password=$user-secret]")
    done
  done
  rm -rf "$work" && mkdir -p "$work"
  printf '%s\n' process.roles=broker,controller node.id=1 controller.quorum.voters=1@127.0.0.1:1 \
    listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1 controller.listener.names=CONTROLLER \
    "log.dirs=$work" >"$cache/template.properties"
  java "${log_options[@]}" -cp "$(classpath)" kafka.tools.StorageTool format --cluster-id c3RyZWFtYWdnLXRlc3QtMQ \
    --config "$cache/template.properties" "${users[@]}" >"$cache/format.log" 2>&1 || {
    tail -n 20 "$cache/format.log" >&2
    die "kafka's storage tool could not format a directory; see $cache/format.log"
  }
  mv "$work" "$template"
}

# make_certificates: an authority, a broker's and a client's certificate, and an authority that signed neither. Once a
# data directory.
make_certificates() {
  [ "$secured" = yes ] && [ ! -f "$dir/tls/other-ca.crt" ] || return 0
  command -v openssl >/dev/null || die "openssl is needed (Debian: apt-get install openssl)"
  local tls=$dir/tls key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
  rm -rf "$tls" && mkdir -m 700 "$tls"
  {
    openssl req -x509 "${key[@]}" -days 3650 -subj /CN=streamagg-test-ca -keyout "$tls/ca.key" -out "$tls/ca.crt"
    openssl req -new "${key[@]}" -subj /CN=broker -keyout "$tls/broker.key" -out "$tls/broker.csr"
    openssl req -new "${key[@]}" -subj /CN=streamagg -keyout "$tls/client.key" -out "$tls/client.csr"
    openssl x509 -req -in "$tls/broker.csr" -CA "$tls/ca.crt" -CAkey "$tls/ca.key" -CAcreateserial -days 3650 \
      -extfile <(echo subjectAltName=IP:127.0.0.1,DNS:localhost) -out "$tls/broker.crt"
    openssl x509 -req -in "$tls/client.csr" -CA "$tls/ca.crt" -CAkey "$tls/ca.key" -CAcreateserial -days 3650 \
      -out "$tls/client.crt"
    cat "$tls/broker.key" "$tls/broker.crt" "$tls/ca.crt" >"$tls/broker.pem"
    openssl req -x509 "${key[@]}" -days 3650 -subj /CN=other-ca -keyout "$tls/other-ca.key" -out "$tls/other-ca.crt"
  } >"$tls/openssl.log" 2>&1 || {
    tail -n 20 "$tls/openssl.log" >&2
    die "openssl could not make certificates"
  }
}

# port_of NODE, controller_port_of NODE: the first node's have no number in the file of ports.
port_of() { local of="KAFKA_PORT_CHOSEN${1#1}"; echo "${!of}"; }
controller_port_of() { local of="KAFKA_CONTROLLER_PORT_CHOSEN${1#1}"; echo "${!of}"; }

# voters: the quorum, each node with its address.
voters() {
  local node list=''
  for node in $(nodes); do list+=",$node@127.0.0.1:$(controller_port_of "$node")"; done
  echo "${list#,}"
}

# write_properties NODE
write_properties() {
  local listeners advertised protocols replicas least
  listeners="PLAINTEXT://127.0.0.1:$(port_of "$1")"
  advertised=$listeners
  replicas=$(broker_count)
  replicas=$((replicas < 3 ? replicas : 3))
  least=$((replicas > 1 ? replicas - 1 : 1))
  protocols='PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,MTLS:SSL,SASLTLS:SASL_SSL'
  if [ -n "$inside_name" ]; then
    listeners+=",INSIDE://0.0.0.0:$inside_port"
    advertised+=",INSIDE://$inside_name"
  fi
  if [ "$secured" = yes ]; then
    local secure="SASL://127.0.0.1:$KAFKA_SASL_PORT_CHOSEN,SASLTLS://127.0.0.1:$KAFKA_SASL_TLS_PORT_CHOSEN"
    secure+=",TLS://127.0.0.1:$KAFKA_TLS_PORT_CHOSEN,MTLS://127.0.0.1:$KAFKA_MTLS_PORT_CHOSEN"
    listeners+=",$secure"
    advertised+=",$secure"
  fi
  cat <<T
process.roles=broker,controller
node.id=$1
controller.quorum.voters=$(voters)
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=$listeners,CONTROLLER://127.0.0.1:$(controller_port_of "$1")
advertised.listeners=$advertised
listener.security.protocol.map=$protocols
log.dirs=$(node_dir "$1")/data
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=$replicas
min.insync.replicas=$least
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$least
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$least
group.initial.rebalance.delay.ms=0
# Results carry the time of their window: with a retention by time a broker deletes those of old traces at once.
log.retention.ms=-1
controlled.shutdown.enable=false
# A machine at its limits keeps a broker from its heartbeat for seconds; without a session it has no partition.
broker.session.timeout.ms=$KAFKA_SESSION_MS_CHOSEN
broker.heartbeat.interval.ms=500
T
  # The last of a name holds.
  cat "$dir/settings" 2>/dev/null || true
  [ "$secured" = yes ] || return 0
  cat <<T
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin;User:CN=streamagg
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
ssl.keystore.type=PEM
ssl.keystore.location=$dir/tls/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$dir/tls/ca.crt
listener.name.mtls.ssl.client.auth=required
T
  local listener mechanism module=org.apache.kafka.common.security
  for listener in sasl sasltls; do
    echo "listener.name.$listener.plain.sasl.jaas.config=$module.plain.PlainLoginModule required" \
      'user_admin="admin-secret" user_limited="limited-secret";'
    for mechanism in scram-sha-256 scram-sha-512; do
      echo "listener.name.$listener.$mechanism.sasl.jaas.config=$module.scram.ScramLoginModule required;"
    done
  done
}

# draw_port NAME: notes a port under NAME that is free and noted under no other.
draw_port() {
  local drawn
  drawn=$(free_port)
  while grep -q "=$drawn\$" "$dir/ports.new"; do drawn=$(free_port); done
  echo "$1=$drawn" >>"$dir/ports.new"
}

draw_ports() {
  local node listener
  [ -n "$port" ] || [ "$name" != default ] || port=9092
  printf '%s\n' "KAFKA_BROKERS_CHOSEN=${brokers:-1}" "KAFKA_SESSION_MS_CHOSEN=${session_ms:-15000}" >"$dir/ports.new"
  for node in $(seq "${brokers:-1}"); do
    if [ "$node" = 1 ] && [ -n "$port" ]; then
      echo "KAFKA_PORT_CHOSEN=$port" >>"$dir/ports.new"
    else
      draw_port "KAFKA_PORT_CHOSEN${node#1}"
    fi
    draw_port "KAFKA_CONTROLLER_PORT_CHOSEN${node#1}"
  done
  for listener in SASL SASL_TLS TLS MTLS; do draw_port "KAFKA_${listener}_PORT_CHOSEN"; done
  printf '%s' "$settings" >"$dir/settings"
  mv "$dir/ports.new" "$dir/ports"
}

# choose_ports: once per data directory, so that a restarted broker is found where it was.
choose_ports() {
  [ -f "$dir/ports" ] || draw_ports
  # shellcheck disable=SC1091
  source "$dir/ports"
  KAFKA_SESSION_MS_CHOSEN=${KAFKA_SESSION_MS_CHOSEN:-15000}
  [ "${session_ms:-$KAFKA_SESSION_MS_CHOSEN}" = "$KAFKA_SESSION_MS_CHOSEN" ] ||
    die "broker $name has a session of $KAFKA_SESSION_MS_CHOSEN ms: delete it first (kafka.sh delete $name)"
  # Rights once asked for stay in force on every later start.
  ! grep -qs ^authorizer "$dir/server.properties" || secured=yes
  [ "$secured" = no ] || [ -n "${KAFKA_MTLS_PORT_CHOSEN:-}" ] ||
    die "broker $name is of an older version: delete it first (kafka.sh delete $name)"
  [ -z "$settings" ] || printf '%s' "$settings" | cmp -s - "$dir/settings" ||
    die "broker $name has other settings: delete it first (kafka.sh delete $name)"
  [ -z "$port" ] || [ "$port" = "$KAFKA_PORT_CHOSEN" ] ||
    die "broker $name has port $KAFKA_PORT_CHOSEN, not $port: delete it first (kafka.sh delete $name)"
}

# answers PORT COUNT: the broker lists so many live brokers, or more, in a Metadata response (version 4, no topics).
answers() {
  # shellcheck disable=SC2016
  in_namespace timeout 5 bash -c '
    exec 3<>"/dev/tcp/127.0.0.1/$0" &&
    printf "\0\0\0\017\0\003\0\004\0\0\0\001\377\377\0\0\0\0\0" >&3 &&
    [ "$(head -c 16 <&3 | tail -c 1 | od -An -tu1)" -ge "$1" ]' "$1" "$2"
}

print_env() {
  [ -f "$dir/ports" ] || die "broker $name has never been started"
  # shellcheck disable=SC1091
  source "$dir/ports"
  local node bootstrap=''
  for node in $(nodes); do bootstrap+=",127.0.0.1:$(port_of "$node")"; done
  echo "KAFKA_BOOTSTRAP=${bootstrap#,}"
  [ "$(broker_count)" = 1 ] || return 0
  grep -q ^authorizer "$dir/server.properties" || return 0
  echo "KAFKA_SASL_BOOTSTRAP=127.0.0.1:$KAFKA_SASL_PORT_CHOSEN"
  echo "KAFKA_SASL_TLS_BOOTSTRAP=127.0.0.1:$KAFKA_SASL_TLS_PORT_CHOSEN"
  echo "KAFKA_TLS_BOOTSTRAP=127.0.0.1:$KAFKA_TLS_PORT_CHOSEN"
  echo "KAFKA_MTLS_BOOTSTRAP=127.0.0.1:$KAFKA_MTLS_PORT_CHOSEN"
  echo "KAFKA_TLS_DIR=$dir/tls"
}

# prepare NODE: its settings, and an empty data directory unless there is one.
prepare() {
  local at
  at=$(node_dir "$1")
  mkdir -p "$at"
  write_properties "$1" >"$at/server.properties.new"
  mv "$at/server.properties.new" "$at/server.properties"
  [ ! -d "$at/data" ] || return 0
  rm -rf "$at/data.new"
  cp -r "$template" "$at/data.new"
  # The template is of a node 1. Each directory of a cluster has an id of its own: 16 bytes in the URL's alphabet.
  [ "$1" = 1 ] || sed -e "s/^node.id=.*/node.id=$1/" \
    -e "s/^directory.id=.*/directory.id=S$(head -c 15 /dev/urandom | base64 | tr '+/' '-_')g/" \
    "$template/meta.properties" >"$at/data.new/meta.properties"
  mv "$at/data.new" "$at/data"
}

# launch NODE: starts its process.
launch() {
  local at heap=(-Xms128m -Xmx512m)
  at=$(node_dir "$1")
  [ "$(broker_count)" = 1 ] || heap=(-Xms64m -Xmx256m)
  # shellcheck disable=SC2188
  if in_namespace bash -c ": <>/dev/tcp/127.0.0.1/$(port_of "$1")" 2>/dev/null; then
    die "port $(port_of "$1") is taken by somebody else; choose another with --port"
  fi
  prepare "$1"
  # shellcheck disable=SC2086
  start_process "$at" kafka ${netns:+nsenter --net="$netns"} \
    java "${heap[@]}" -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError -Xlog:disable -Djava.awt.headless=true \
    "${log_options[@]}" ${KAFKA_JAVA_OPTS:-} -cp "$(classpath)" kafka.Kafka "$at/server.properties"
}

start() {
  local began node missing=() live=0
  began=$(now_ms)
  command -v java >/dev/null || die "java 17 or newer is needed (Debian: apt-get install openjdk-17-jre-headless)"
  (lock "$cache" && fetch_jars && format_template)
  lock "$dir"
  [ "${brokers:-$(broker_count)}" = "$(broker_count)" ] ||
    die "$name has $(broker_count) broker(s), not $brokers: delete it first (kafka.sh delete $name)"
  [ "$(broker_count)" = 1 ] || [ "$secured$inside_name$port" = no ] ||
    die "several brokers have neither --secured nor --inside nor --port"
  choose_ports
  for node in $(nodes); do process_pid "$(node_dir "$node")" kafka >/dev/null || missing+=("$node"); done
  if [ ${#missing[@]} = 0 ]; then
    say "kafka $name already runs"
    print_env
    return 0
  fi
  make_certificates
  for node in "${missing[@]}"; do launch "$node"; done
  # A broker that is paused is listed until its session ends, or not.
  for node in $(nodes); do [ "$(state_of "$node")" != running ] || live=$((live + 1)); done
  # A machine at its limits takes minutes for it. A process that ends is not waited for.
  for node in "${missing[@]}"; do await 300 "$(node_dir "$node")" kafka answers "$(port_of "$node")" "$live"; done
  say "kafka $name answers after $(($(now_ms) - began)) ms (data $dir)"
  print_env
}

# signal NAME: only to brokers of ours that are alive.
signal() {
  local node pid
  for node in $(nodes); do
    pid=$(process_pid "$(node_dir "$node")" kafka) || die "$(title "$node") does not run"
    kill "-$1" "$pid"
  done
}

await_end() {
  local node deadline=$(($(now_ms) + 10000))
  for node in $(nodes); do
    while process_pid "$(node_dir "$node")" kafka >/dev/null; do
      [ "$(now_ms)" -lt "$deadline" ] || die "$(title "$node") is still there 10 s after SIGKILL"
      sleep 0.02
    done
  done
}

# stop_all SECONDS: all are told before one is waited for: the last of several has nobody left to agree with.
stop_all() {
  local node pid
  for node in $(nodes); do
    if pid=$(process_pid "$(node_dir "$node")" kafka); then kill -TERM "$pid" 2>/dev/null || true; fi
  done
  for node in $(nodes); do stop_process "$(node_dir "$node")" kafka "$1"; done
}

# state_of NODE
state_of() {
  local pid at
  at=$(node_dir "$1")
  if pid=$(process_pid "$at" kafka); then
    case $(ps -o state= -p "$pid") in T*) echo paused ;; *) echo running ;; esac
  elif [ -d "$at/data" ]; then
    echo stopped
  else
    echo absent
  fi
}

status() {
  local node
  if [ "$(broker_count)" = 1 ]; then
    state_of 1
    rmdir "$dir" 2>/dev/null || true
  else
    for node in $(nodes); do echo "$node $(state_of "$node")"; done
  fi
}

topic() {
  fetch_jars
  java "${log_options[@]}" -cp "$(classpath)" org.apache.kafka.tools.TopicCommand --bootstrap-server "$name" \
    --create --if-not-exists --topic "$topic" --partitions "$partitions"
}

case $command in
  start) start ;;
  stop) lock "$dir"; stop_all 15; say "kafka $name stopped" ;;
  delete) lock "$dir"; stop_all 1; rm -rf "${dir:?}"; say "kafka $name deleted" ;;
  kill) signal KILL; await_end ;;
  pause) signal STOP ;;
  continue) signal CONT ;;
  status) status ;;
  env) print_env ;;
  topic) topic ;;
  *) usage ;;
esac

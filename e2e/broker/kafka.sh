#!/usr/bin/env bash
# A real Apache Kafka broker (KRaft, one process is broker and controller) from Maven's jars, for tests and laptops.
# Everything listens on loopback. Automatic topic creation is off.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/process.sh
source "$here/../cluster/process.sh"

usage() {
  cat >&2 <<'T'
usage: kafka.sh start NAME [--port PORT] [--auth] [--dir DIR]   start, or start again with the same ports, rights and data
       kafka.sh stop NAME       ask it to end; the data stay
       kafka.sh delete NAME     stop and remove the data
       kafka.sh kill NAME       SIGKILL
       kafka.sh pause NAME      SIGSTOP
       kafka.sh continue NAME   SIGCONT
       kafka.sh status NAME     prints running, paused, stopped or absent
       kafka.sh env NAME        prints where it listens
       kafka.sh topic HOST:PORT TOPIC PARTITIONS   creates a topic on any broker, unless it is there
start prints KAFKA_BOOTSTRAP=HOST:PORT and with --auth also KAFKA_SASL_BOOTSTRAP=HOST:PORT, where SASL PLAIN users are
admin (password admin-secret, all rights) and limited (password limited-secret, no rights). A client of KAFKA_BOOTSTRAP
has all rights. Without --port the broker named default takes 9092, others a free port (KAFKA_PORT overrides both).
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
port=${KAFKA_PORT:-}
auth=no
# The cluster's bring-up sets these three: the namespace to run in, and what pods are told to connect to.
netns='' inside_port='' inside_name=''
while [ $# -gt 0 ]; do
  case $1 in
    --port) port=${2:?--port needs a number}; shift 2 ;;
    --dir) dir=${2:?--dir needs a directory}; shift 2 ;;
    --auth) auth=yes; shift ;;
    --netns) netns=${2:?--netns needs a file}; shift 2 ;;
    --inside) inside_name=${2:?--inside needs NAME:PORT}; inside_port=${inside_name##*:}; shift 2 ;;
    *) usage ;;
  esac
done
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

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
  rm -rf "$cache/libs" "$cache/template" "$cache/classes.jsa"
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

# format_template: a formatted, empty data directory, copied for each new broker: formatting takes a JVM's start.
format_template() {
  [ -f "$cache/template/meta.properties" ] && return 0
  local work=$cache/template.new
  rm -rf "$work" && mkdir -p "$work"
  printf '%s\n' process.roles=broker,controller node.id=1 controller.quorum.voters=1@127.0.0.1:1 \
    listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1 controller.listener.names=CONTROLLER \
    "log.dirs=$work" >"$cache/template.properties"
  java "${log_options[@]}" -cp "$(classpath)" kafka.tools.StorageTool format --cluster-id c3RyZWFtYWdnLXRlc3QtMQ \
    --config "$cache/template.properties" >"$cache/format.log" 2>&1 || {
    tail -n 20 "$cache/format.log" >&2
    die "kafka's storage tool could not format a directory; see $cache/format.log"
  }
  mv "$work" "$cache/template"
}

write_properties() {
  local listeners="PLAINTEXT://127.0.0.1:$KAFKA_PORT_CHOSEN" advertised protocols
  advertised=$listeners
  protocols='PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT'
  if [ -n "$inside_name" ]; then
    listeners+=",INSIDE://0.0.0.0:$inside_port"
    advertised+=",INSIDE://$inside_name"
  fi
  if [ "$auth" = yes ]; then
    listeners+=",SASL://127.0.0.1:$KAFKA_SASL_PORT_CHOSEN"
    advertised+=",SASL://127.0.0.1:$KAFKA_SASL_PORT_CHOSEN"
  fi
  cat <<T
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$KAFKA_CONTROLLER_PORT_CHOSEN
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=$listeners,CONTROLLER://127.0.0.1:$KAFKA_CONTROLLER_PORT_CHOSEN
advertised.listeners=$advertised
listener.security.protocol.map=$protocols
log.dirs=$dir/data
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# Results carry the time of their window: with a retention by time a broker deletes those of old traces at once.
log.retention.ms=-1
controlled.shutdown.enable=false
# After SIGKILL the broker is let back in when its old session has ended: 9 s by default.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
T
  [ "$auth" = yes ] || return 0
  cat <<'T'
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_admin="admin-secret" user_limited="limited-secret";
T
}

# choose_ports: once per data directory, so that a restarted broker is found where it was.
choose_ports() {
  if [ ! -f "$dir/ports" ]; then
    [ -n "$port" ] || { if [ "$name" = default ]; then port=9092; else port=$(free_port); fi; }
    {
      echo "KAFKA_PORT_CHOSEN=$port"
      echo "KAFKA_CONTROLLER_PORT_CHOSEN=$(free_port)"
      echo "KAFKA_SASL_PORT_CHOSEN=$(free_port)"
    } >"$dir/ports"
  fi
  # shellcheck disable=SC1091
  source "$dir/ports"
  # Rights once asked for stay in force on every later start.
  ! grep -qs ^authorizer "$dir/server.properties" || auth=yes
  [ -z "$port" ] || [ "$port" = "$KAFKA_PORT_CHOSEN" ] ||
    die "broker $name has port $KAFKA_PORT_CHOSEN, not $port: delete it first (kafka.sh delete $name)"
}

# answers: the broker lists at least one live broker, itself, in a Metadata response (version 4, no topics).
answers() {
  # shellcheck disable=SC2016
  in_namespace timeout 5 bash -c '
    exec 3<>"/dev/tcp/127.0.0.1/$0" &&
    printf "\0\0\0\017\0\003\0\004\0\0\0\001\377\377\0\0\0\0\0" >&3 &&
    [ "$(head -c 16 <&3 | tail -c 4 | od -An -tu1 | tr -d " ")" = 0001 ]' "$1"
}

print_env() {
  [ -f "$dir/ports" ] || die "broker $name has never been started"
  # shellcheck disable=SC1091
  source "$dir/ports"
  echo "KAFKA_BOOTSTRAP=127.0.0.1:$KAFKA_PORT_CHOSEN"
  grep -q ^authorizer "$dir/server.properties" && echo "KAFKA_SASL_BOOTSTRAP=127.0.0.1:$KAFKA_SASL_PORT_CHOSEN"
  return 0
}

start() {
  local began
  began=$(now_ms)
  command -v java >/dev/null || die "java 17 or newer is needed (Debian: apt-get install openjdk-17-jre-headless)"
  (lock "$cache" && fetch_jars && format_template)
  lock "$dir"
  if process_pid "$dir" kafka >/dev/null; then
    say "kafka $name already runs"
    print_env
    return 0
  fi
  choose_ports
  # shellcheck disable=SC2188
  if in_namespace bash -c ": <>/dev/tcp/127.0.0.1/$KAFKA_PORT_CHOSEN" 2>/dev/null; then
    die "port $KAFKA_PORT_CHOSEN is taken by somebody else; choose another with --port"
  fi
  write_properties >"$dir/server.properties.new"
  mv "$dir/server.properties.new" "$dir/server.properties"
  [ -d "$dir/data" ] || cp -r "$cache/template" "$dir/data"
  # shellcheck disable=SC2086
  start_process "$dir" kafka ${netns:+nsenter --net="$netns"} \
    java -Xms128m -Xmx512m -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError -Xlog:disable -Djava.awt.headless=true \
    "${log_options[@]}" ${KAFKA_JAVA_OPTS:-} -cp "$(classpath)" kafka.Kafka "$dir/server.properties"
  await 60 "$dir" kafka answers "$KAFKA_PORT_CHOSEN"
  say "kafka $name answers after $(($(now_ms) - began)) ms (data $dir)"
  print_env
}

# signal NAME: only to a broker of ours that is alive.
signal() {
  local pid
  pid=$(process_pid "$dir" kafka) || die "kafka $name does not run"
  kill "-$1" "$pid"
}

await_end() {
  local deadline=$(($(now_ms) + 10000))
  while process_pid "$dir" kafka >/dev/null; do
    [ "$(now_ms)" -lt "$deadline" ] || die "kafka $name is still there 10 s after SIGKILL"
    sleep 0.02
  done
}

status() {
  local pid
  if pid=$(process_pid "$dir" kafka); then
    case $(ps -o state= -p "$pid") in T*) echo paused ;; *) echo running ;; esac
  elif [ -d "$dir/data" ]; then
    echo stopped
  else
    echo absent
    rmdir "$dir" 2>/dev/null || true
  fi
}

topic() {
  fetch_jars
  java "${log_options[@]}" -cp "$(classpath)" org.apache.kafka.tools.TopicCommand --bootstrap-server "$name" \
    --create --if-not-exists --topic "$topic" --partitions "$partitions" --replication-factor 1
}

case $command in
  start) start ;;
  stop) lock "$dir"; stop_process "$dir" kafka 15; say "kafka $name stopped" ;;
  delete) lock "$dir"; stop_process "$dir" kafka 1; rm -rf "${dir:?}"; say "kafka $name deleted" ;;
  kill) signal KILL; await_end ;;
  pause) signal STOP ;;
  continue) signal CONT ;;
  status) status ;;
  env) print_env ;;
  topic) topic ;;
  *) usage ;;
esac

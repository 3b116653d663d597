#!/usr/bin/env bash
# Flink's SQL from PyPI's apache-flink-libraries, its Kafka connector and its SQL gateway from Maven, for `make bench`.
#   flink.sh fetch          fetches both into the cache, once a version
#   flink.sh run FILE DIR   runs the statements of FILE in one JVM, as this very process; DIR takes logs and scratch files
# FLINK_JAVA_OPTS: further options of the JVM.
set -euo pipefail
flink_version=2.3.0
artifacts=(flink-sql-connector-kafka:5.0.0-2.2 "flink-sql-gateway:$flink_version" "flink-sql-gateway-api:$flink_version")
cache=${STREAMAGG_CACHE:-$HOME/.cache/streamagg}/flink
home=$cache/$flink_version

say() { printf '%s\n' "$*" >&2; }
die() { say "flink.sh: $*"; exit 1; }

fetch() {
  [ -f "$home/complete" ] && return 0
  command -v python3 >/dev/null || die "python3 is needed to fetch Flink (Debian: apt-get install python3-venv)"
  command -v mvn >/dev/null || die "mvn is needed to fetch Flink's Kafka connector (Debian: apt-get install maven)"
  say "fetching Flink $flink_version (340 MB) ..."
  local work=$cache/new
  rm -rf "$work" && mkdir -p "$work"
  {
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" download --disable-pip-version-check --no-deps --dest "$work" \
      "apache-flink-libraries==$flink_version"
    python3 -m zipfile -e "$work"/apache_flink_libraries-*.whl "$work/wheel"
    for artifact in "${artifacts[@]}"; do
      mvn -q -B dependency:copy -DoutputDirectory="$work/jars" -Dartifact="org.apache.flink:$artifact"
    done
  } >"$cache/fetch.log" 2>&1 || { tail -n 20 "$cache/fetch.log" >&2; die "cannot fetch Flink; see $cache/fetch.log"; }
  rm -rf "$home" && mkdir -p "$home"
  mv "$work/wheel/pyflink/lib" "$work/wheel/pyflink/opt" "$work/jars" "$home/"
  touch "$home/complete"
  rm -rf "$work"
}

# The client runs the job in its own JVM: what the kernel counts for this process is all that Flink takes.
run() {
  local file=$1 dir=$2 open=()
  mkdir -p "$dir/conf" "$dir/tmp"
  cat >"$dir/conf/config.yaml" <<Y
execution.target: local
parallelism.default: 2
taskmanager.numberOfTaskSlots: 2
io.tmp.dirs: $dir/tmp
taskmanager.memory.managed.size: 64m
taskmanager.memory.network.max: 128m
# In memory, Flink's default, a checkpoint of more than 5 MB fails.
execution.checkpointing.storage: filesystem
execution.checkpointing.dir: file://$dir/checkpoints
Y
  cat >"$dir/conf/log4j2.properties" <<P
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = Console
logger.checkpoints.name = org.apache.flink.runtime.checkpoint.CheckpointCoordinator
logger.checkpoints.level = INFO
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1} %m%n
P
  for package in java.base/java.{lang,lang.invoke,lang.reflect,net,io,nio,text,time,util,util.concurrent,util.concurrent.atomic,util.concurrent.locks} java.base/sun.nio.ch; do
    open+=(--add-opens "$package=ALL-UNNAMED")
  done
  # shellcheck disable=SC2086
  FLINK_CONF_DIR=$dir/conf exec java -Xms1g -Xmx3g -XX:+UseG1GC "${open[@]}" \
    -Dlog4j.configurationFile="$dir/conf/log4j2.properties" ${FLINK_JAVA_OPTS:-} \
    -cp "$home/lib/*:$home/opt/*:$home/jars/*" \
    org.apache.flink.table.client.SqlClient embedded -hist "$dir/history" -f "$file"
}

case ${1:-} in
  fetch) fetch ;;
  run) [ $# = 3 ] || die "usage: flink.sh run FILE DIR"; run "$2" "$3" ;;
  *) die "usage: flink.sh fetch | flink.sh run FILE DIR" ;;
esac

# shellcheck shell=bash
# Long-running processes of the test cluster and the broker: start, await, stop, and find what is left over.
# Sourced, never run. A process belongs to a state directory DIR: its log is DIR/log/NAME.log, its pid
# DIR/run/NAME.pid, and its environment carries STREAMAGG_PROCESS=DIR/NAME, so that it is recognised even when the
# pid file is lost or its number has been given to somebody else. Nothing else is ever signalled.

# A script that ends on an unexpected error says where.
set -E
trap 'say "error: ${BASH_SOURCE[0]}, line $LINENO: $BASH_COMMAND"' ERR

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Processes are known by the absolute path of their directory.
case ${STREAMAGG_CACHE:-/} in /*) ;; *) die "STREAMAGG_CACHE is $STREAMAGG_CACHE; it must be an absolute path" ;; esac

# now_ms: milliseconds since the epoch.
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# process_pid DIR NAME: prints the pid when the process is alive and ours; fails otherwise.
process_pid() {
  local pid
  pid=$(cat "$1/run/$2.pid" 2>/dev/null) && [ -n "$pid" ] || return 1
  kill -0 "$pid" 2>/dev/null || return 1
  if [ -d /proc/self ]; then
    grep -sqzxF "STREAMAGG_PROCESS=$1/$2" "/proc/$pid/environ" || return 1
    # A zombie has no environment, so that it has failed already.
  fi
  echo "$pid"
}

# start_process DIR NAME COMMAND...: starts COMMAND detached unless it is already alive.
start_process() {
  local dir=$1 name=$2 detach=(setsid)
  shift 2
  process_pid "$dir" "$name" >/dev/null && return 0
  mkdir -p "$dir/log" "$dir/run"
  command -v setsid >/dev/null || detach=(nohup)
  # The shell between writes its own pid and then becomes the command; descriptor 9 is the caller's lock.
  # shellcheck disable=SC2016
  STREAMAGG_PROCESS="$dir/$name" "${detach[@]}" bash -c 'echo $$ >"$0" && exec "$@"' "$dir/run/$name.pid" "$@" \
    </dev/null >"$dir/log/$name.log" 2>&1 9>&- &
  # The pid file is written at once, but by another process.
  local tries=0
  until process_pid "$dir" "$name" >/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 40 ] || fail_component "$dir" "$name" "ended at once"
    sleep 0.05
  done
}

# fail_component DIR NAME MESSAGE: ends the script naming the component, with the tail of its log.
fail_component() {
  say "error: $2: $3; the end of $1/log/$2.log:"
  tail -n 25 "$1/log/$2.log" 2>/dev/null | cut -c1-400 | sed 's/^/    /' >&2 || true
  exit 1
}

# await SECONDS DIR NAME COMMAND...: repeats COMMAND until it succeeds; fails when process NAME ends or time is up. Says
# each minute that it waits on.
await() {
  local seconds=$1 dir=$2 name=$3 began waited told=0
  shift 3
  began=$(now_ms)
  until "$@" >/dev/null 2>&1; do
    process_pid "$dir" "$name" >/dev/null || fail_component "$dir" "$name" "ended while starting"
    waited=$((($(now_ms) - began) / 1000))
    [ "$waited" -lt "$seconds" ] || fail_component "$dir" "$name" "not ready after $seconds s ($*)"
    if [ "$waited" -ge $((told + 60)) ]; then
      say "$name runs and is not ready after $waited s: waiting on, $seconds s at most ($dir)"
      told=$waited
    fi
    sleep 0.1
  done
}

# stop_process DIR NAME [SECONDS]: asks it to end, insists after SECONDS (10). A paused process is continued.
stop_process() {
  local pid deadline
  if pid=$(process_pid "$1" "$2"); then
    kill -TERM "$pid" 2>/dev/null || true
    kill -CONT "$pid" 2>/dev/null || true
    deadline=$(($(now_ms) + ${3:-10} * 1000))
    while process_pid "$1" "$2" >/dev/null; do
      if [ "$(now_ms)" -ge "$deadline" ]; then
        say "$2 did not end within ${3:-10} s: killed"
        kill -KILL "$pid" 2>/dev/null || true
        deadline=$(($(now_ms) + 5000))
      fi
      sleep 0.05
    done
  fi
  rm -f "$1/run/$2.pid"
}

# marked_pids DIR: prints every process started under DIR, with or without a pid file, and their descendants
# that kept the environment (containerd's shims).
marked_pids() {
  local file
  for file in $(grep -slzF "STREAMAGG_PROCESS=$1/" /proc/[0-9]*/environ || true); do
    file=${file#/proc/}
    echo "${file%/environ}"
  done
}

# kill_marked DIR: ends whatever marked_pids finds.
kill_marked() {
  local pids tries
  for ((tries = 0; tries < 100; tries++)); do
    pids=$(marked_pids "$1")
    [ -n "$pids" ] || return 0
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null || true
    sleep 0.05
  done
  die "processes of $1 cannot be killed: $(echo "$pids" | tr '\n' ' ')"
}

# free_port: prints a port nobody listens on, below the range the kernel hands out by itself.
free_port() {
  local port tries
  for ((tries = 0; tries < 50; tries++)); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    # shellcheck disable=SC2188
    if ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return 0
    fi
  done
  die "no free port found"
}

# lock DIR [SECONDS]: waits for whoever else is working on DIR; held until the script or subshell ends.
lock() {
  mkdir -p "$1"
  exec 9>"$1/lock"
  command -v flock >/dev/null || return 0
  flock -w "${2:-300}" 9 || die "somebody else has been working on $1 for ${2:-300} s"
}

# digest_of FILE...: prints a digest of their contents; used to skip what is already built.
digest_of() { cat "$@" | sha256sum | cut -c1-16; }

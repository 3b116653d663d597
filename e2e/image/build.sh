#!/usr/bin/env bash
# Makes the image localhost/streamagg:dev as a docker archive, $STREAMAGG_CACHE/image/streamagg.tar. With a Docker
# daemon the Dockerfile compiles the binaries; without one buildah packs those of $CARGO_TARGET_DIR/release
# (make binaries) onto a base made by debootstrap; OPERATOR names another build of the operator. Nothing is done when
# nothing has changed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=../cluster/process.sh
source "$here/../cluster/process.sh"
cache=${STREAMAGG_CACHE:-$HOME/.cache/streamagg}
work=$cache/image
archive=$work/streamagg.tar
readonly image=localhost/streamagg:dev base=localhost/streamagg-base:bookworm
readonly packages=ca-certificates,libssl3,libstdc++6
began=$(now_ms)
lock "$work" 1800

if command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; then
  docker build -t "$image" "$root" >&2
  stamp=$(docker image inspect -f '{{.Id}}' "$image")
  if [ "$stamp" != "$(cat "$archive.stamp" 2>/dev/null)" ]; then
    docker save "$image" -o "$archive.new" && mv "$archive.new" "$archive"
    echo "$stamp" >"$archive.stamp"
  fi
  exit 0
fi

[ "$(id -u)" = 0 ] || die "without Docker the image is built by buildah as root"
missing=()
for tool in buildah debootstrap objcopy:binutils; do
  PATH=$PATH:/usr/sbin command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || die "missing: ${missing[*]}"
  say "installing ${missing[*]} (apt-get)"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
    >"$work/apt.log" 2>&1 || { tail -n 20 "$work/apt.log" >&2; die "apt-get failed; see $work/apt.log"; }
fi

release=${CARGO_TARGET_DIR:-$cache/target}/release
binaries=("${OPERATOR:-$release/streamagg-operator}" "$release/streamagg-processor")
for file in "${binaries[@]}"; do
  [ -x "$file" ] || die "$file is missing: run make binaries"
done
stamp=$(digest_of "${binaries[@]}" "$root/Dockerfile" "${BASH_SOURCE[0]}")
if [ -f "$archive" ] && [ "$stamp" = "$(cat "$archive.stamp" 2>/dev/null)" ]; then
  say "image $image is up to date"
  exit 0
fi

# run LOG COMMAND...: quiet unless it fails.
run() {
  local log=$work/$1.log
  shift
  "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "$1 failed; see $log"; }
}

if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  say "making the base image with debootstrap (one minute, once) ..."
  rm -rf "$work/rootfs"
  run debootstrap debootstrap --variant=minbase --include=$packages bookworm "$work/rootfs"
  # Nobody reads manuals in the image, and its apt is never used.
  rm -rf "$work/rootfs"/{var/cache/apt,var/lib/apt/lists,usr/share/doc,usr/share/man,usr/share/locale,usr/share/info}/*
  container=$(buildah from scratch)
  run base buildah add -q "$container" "$work/rootfs" /
  run base buildah commit -q --rm "$container" "$base"
  rm -rf "$work/rootfs"
fi

rm -rf "$work/context" && mkdir -p "$work/context"
for file in "${binaries[@]}"; do objcopy --strip-debug "$file" "$work/context/${file##*/}"; done
run build buildah bud --layers --isolation chroot --network host --pull-never --build-arg BASE=$base \
  --target binaries -f "$root/Dockerfile" -t "$image" "$work/context"
rm -f "$archive.new"
run push buildah push -q "$image" "docker-archive:$archive.new:$image"
mv "$archive.new" "$archive"
echo "$stamp" >"$archive.stamp"
# Each build leaves the one before without a name.
buildah rmi --prune >/dev/null 2>&1 || true
say "image $image made in $(($(now_ms) - began)) ms ($(du -h "$archive" | cut -f1))"

#!/usr/bin/env bash
# Makes the image localhost/pause:1 as a docker archive in the file given as the first argument.
set -euo pipefail
out=$(realpath -m "${1:?usage: build.sh OUTPUT_FILE}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
gcc -static -Os -s -o "$work/root/pause" "$here/pause.c"
fixed=(--sort=name --owner=0 --group=0 --numeric-owner --mtime=@0)
tar -C "$work/root" "${fixed[@]}" -cf "$work/layer.tar" pause
digest=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
architecture=$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')
cat >"$work/config.json" <<T
{"architecture":"$architecture","os":"linux","config":{"Entrypoint":["/pause"],"User":"65535:65535"},
 "rootfs":{"type":"layers","diff_ids":["sha256:$digest"]},"history":[{"created_by":"pause.c"}]}
T
echo '[{"Config":"config.json","RepoTags":["localhost/pause:1"],"Layers":["layer.tar"]}]' >"$work/manifest.json"
mkdir -p "$(dirname "$out")"
tar -C "$work" "${fixed[@]}" -cf "$out.new" manifest.json config.json layer.tar
mv "$out.new" "$out"

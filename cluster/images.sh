#!/usr/bin/env bash
# Builds our images from their Dockerfiles, without a daemon or a registry, and puts them into the nodes of the cluster
# if one is up:   images.sh [operator] [scripted] [cpu]      (nothing named: operator scripted)
#   operator  localhost/openseer-operator:test     on every node
#   scripted  localhost/openseer-worker:scripted   on every node; the scripted engine alone
#   cpu       localhost/openseer-worker:cpu        on nodes n0 and n1 only, because it is large: vLLM for processors
# A content key (Dockerfile, locks, packages) identifies built images and images in nodes: a repeated call does nothing,
# and a change of code transfers one small layer.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
source "$REPOSITORY/images/recipe.sh"

BASE=docker.io/library/debian:$SUITE-slim
KEY_LABEL=openseer.dev/content

store() { buildah --root "$BUILDAH_ROOT" --runroot "$BUILDAH_ROOT-run" --storage-driver "$DRIVER" "$@"; }

# overlay if the kernel permits it here (not within another overlay), else plain copies
choose_driver() {
  mkdir -p "$BUILDAH_ROOT"
  if [ ! -e "$BUILDAH_ROOT/driver" ]; then
    DRIVER=overlay
    store images >/dev/null 2>&1 || { rm -rf "$BUILDAH_ROOT" "$BUILDAH_ROOT-run"; mkdir -p "$BUILDAH_ROOT"; DRIVER=vfs; }
    echo "$DRIVER" >"$BUILDAH_ROOT/driver"
  fi
  DRIVER=$(cat "$BUILDAH_ROOT/driver")
}

# Makes the base image from Debian's packages, in place of the base that the Dockerfiles name, since no image is pulled.
# It includes ca-certificates, because the build mounts the builder's certificates over the file of that package.
base() {
  local tarball=$CACHE/base/debian-$SUITE.tar root container
  store inspect --type image "$BASE" >/dev/null 2>&1 && return
  if [ ! -e "$tarball" ]; then
    say "images: base, Debian $SUITE by debootstrap (a minute, once)"
    mkdir -p "$CACHE/base"; root=$(mktemp -d "$CACHE/base/root.XXXXXX")
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$SUITE" "$root" ${DEBIAN_MIRROR:-} \
      >"$CACHE/base/log" 2>&1 || { tail -n 5 "$CACHE/base/log" >&2; fail 1 "debootstrap failed; its log: $CACHE/base/log"; }
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/{doc,man,locale,info}/*
    # debootstrap copies the machine's resolver settings, which an image must not have.
    rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
    tar -C "$root" --numeric-owner -cf "$tarball.new" . && mv "$tarball.new" "$tarball"
    rm -rf "$root"
  fi
  container=$(store from scratch)
  store add -q "$container" "$tarball" / >/dev/null
  store config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  store commit -q --rm "$container" "$BASE" >/dev/null
}

# describe NAME: sets IMAGE, WHERE, and the variables of the recipe
describe() {
  WHERE=all
  case $1 in
    operator) IMAGE=localhost/openseer-operator:test; recipe operator ;;
    scripted) IMAGE=localhost/openseer-worker:scripted; recipe worker none ;;
    cpu) IMAGE=localhost/openseer-worker:cpu WHERE='n0 n1'; recipe worker cpu ;;
    *) fail 2 "no image is named $1; images: operator, scripted, cpu" ;;
  esac
}

content_key() {
  local package folders=(examples)
  (cd "$REPOSITORY" && {
    for package in $PACKAGES; do folders+=("$package"/openseer_*); done
    echo "$SUITE ${RECIPE[*]}"
    cat "$DOCKERFILE" .dockerignore images/sbom.py LICENSE pyproject.toml requirements/bootstrap.txt "requirements/$LOCK.txt"
    find "${folders[@]}" -name __pycache__ -prune -o -type f -print | LC_ALL=C sort | xargs sha256sum
  } | sha256sum | head -c 16)
}

# Mounts the builder's certificates and pip settings over files of the image, for the build only.
lent() {
  local folder=$CACHE/lent; mkdir -p "$folder" "$HOME/.cache/uv"
  echo 'system-certs = true' >"$folder/uv.toml"
  LENT=(-v "$folder/uv.toml:/etc/uv/uv.toml:ro" -v "$HOME/.cache/uv:/var/cache/uv" --build-arg UV_CACHE_DIR=/var/cache/uv)
  local certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
  [ ! -e "$certificates" ] || LENT+=(-v "$certificates:/etc/ssl/certs/ca-certificates.crt:ro")
  [ ! -e /etc/pip.conf ] || LENT+=(-v /etc/pip.conf:/etc/pip.conf:ro)
}

# build NAME KEY: builds the image, then its OCI layout; its layers are always compressed, and zstd is the fastest method
build() {
  local name=$1 key=$2 layout=$IMAGES/$1 log=$CACHE/image-$1.log start=$SECONDS
  if [ "$(cat "$layout/key" 2>/dev/null)" = "$key" ]; then return; fi
  lent
  say "images: $IMAGE …"
  (cd "$REPOSITORY" && store "${BUILDAH_BUD[@]}" --pull=never "${LENT[@]}" --build-arg BASE="$BASE" "${RECIPE[@]}" \
    --tag "$IMAGE" .) >"$log" 2>&1 || { tail -n 15 "$log" >&2; fail 1 "$IMAGE was not built; the whole log: $log"; }
  say "images: $IMAGE built after $((SECONDS - start)) s; writing its layers"
  rm -f "$layout/key"; mkdir -p "$IMAGES"
  store push -q --compression-format zstd --compression-level 1 "$IMAGE" "oci:$layout:${IMAGE##*:}"
  "$HERE/oci_layout.py" keep-only "$layout" "${IMAGE##*:}"
  echo "$key" >"$layout/key"
  # Removes images of earlier keys, and containers of interrupted builds.
  store rmi --prune >/dev/null 2>&1 || true
  say "images: $IMAGE ready after $((SECONDS - start)) s"
}

# load NAME KEY NODE: streams the layers that the node lacks into the node's image store
load() {
  local name=$1 key=$2 node=$3 start=$SECONDS held=$NODES/$3/layers-of-$1 log=$STATE/log/$3-import.log
  [ -z "$(ctr_of "$node" images ls -q "name==$IMAGE,labels.\"$KEY_LABEL\"==$key")" ] || return 0
  # The node stores only the unpacked layers: without their archives the large image takes half the space.
  put() { "$HERE/oci_layout.py" tar "$IMAGES/$name" "$@" | ctr_of "$node" images import --local --base-name "${IMAGE%:*}" \
    --label "$KEY_LABEL=$key" --discard-unpacked-layers - >"$log" 2>&1; }
  put "$held" || { rm -f "$held"; put "$held"; } || { tail -n 5 "$log" >&2; fail 1 "$IMAGE could not be put into $node"; }
  "$HERE/oci_layout.py" layers "$IMAGES/$name" >"$held"
  nameless "$node" | while read -r old; do ctr_of "$node" images rm "$old" >/dev/null || true; done
  say "images: $IMAGE is in $node after $((SECONDS - start)) s"
}

# nameless NODE: lists images whose name a newer image has; the node would keep them until its disk is nearly full
nameless() {
  ctr_of "$1" images ls | awk '$1 !~ /^sha256:/ {named[$3]} $1 ~ /^sha256:/ {digest[$1] = $3}
    END {for (old in digest) if (!(digest[old] in named)) print old}'
}

LOCK_PATIENCE=1800  # timeout of a lock, in seconds
lock() {  # lock NAME: permits one build of an image at a time; releases the previous lock
  exec 8>"$CACHE/locks/$1"
  flock -n 8 || { say "images: another build of $1 runs; waiting for it"; flock -w "$LOCK_PATIENCE" 8 || fail 1 "it took over $LOCK_PATIENCE s"; }
}

main() {
  [ $# -gt 0 ] || set -- operator scripted
  local name key node into=''
  for name in "$@"; do describe "$name"; done
  if any_alive; then into=$(nodes)
  elif [ -n "$(nodes)" ]; then say "images: the cluster was killed, so they are not loaded; the next \`up\` starts a new one"; fi
  # shellcheck disable=SC2086
  need_tools $RUNNING_TOOLS $BUILDING_TOOLS
  mkdir -p "$CACHE/locks"
  lock base; choose_driver; base
  for name in "$@"; do
    lock "$name"; describe "$name"; key=$(content_key)
    build "$name" "$key"
    local jobs=()
    for node in $into; do
      [[ "$WHERE" = all || " $WHERE " = *" $node "* ]] || continue
      load "$name" "$key" "$node" 8>&- & jobs+=($!)
    done
    for node in "${jobs[@]}"; do wait "$node" || exit 1; done
  done
}
main "$@"; exit

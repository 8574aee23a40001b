#!/usr/bin/env bash
# Builds all artifacts that a registry needs for a cluster: both images, and the chart that names them by digest.
#   make images REGISTRY=registry.example/team [PUSH=1] [ENGINE=gpu|cpu|none] [BUILDER=buildah|docker]
# PUSH=1 pushes the images, and the chart as registry.example/team/charts/openseer; log in beforehand (buildah login or
# docker login, helm registry login). Without it the images are OCI layouts. All files are written to dist/images.
# PLAIN_HTTP=1: the registry has no TLS. BUILD_FLAGS: additional flags of the builder, for instance a mirror's base:
#   BUILD_FLAGS="--build-arg BASE=mirror.example/debian@sha256:…"
set -euo pipefail
REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$REPOSITORY/images/recipe.sh"

OUT=$REPOSITORY/dist/images
CHART=$REPOSITORY/charts/openseer
VERSION=$(version)

say() { printf '%s\n' "$*" >&2; }
fail() { say "images: $*"; exit 2; }

check() {
  [[ ${REGISTRY:=} =~ ^[a-z0-9-]+[.:][a-z0-9.:-]+(/[a-z0-9._-]+)*$ ]] ||
    fail "REGISTRY: found \"$REGISTRY\", allowed: a host with a dot or a port, and a path: make images REGISTRY=registry.example/team"
  case ${ENGINE:=gpu} in gpu | cpu | none) ;; *) fail "ENGINE: found $ENGINE, allowed: gpu, cpu, none" ;; esac
  case ${PUSH:=} in '' | 1) ;; *) fail "PUSH: found $PUSH, allowed: 1, or nothing" ;; esac
  if [ -z "${BUILDER:=}" ]; then for BUILDER in buildah docker ''; do ! command -v "$BUILDER" >/dev/null || break; done; fi
  case $BUILDER in buildah | docker) ;; *) fail "BUILDER: found \"$BUILDER\", allowed: buildah, docker; install one of them" ;; esac
  command -v helm >/dev/null || fail "helm: found none on the path; it packs the chart (3.8 or newer)"
  TLS=() HELM_TLS=()
  [ -z "${PLAIN_HTTP:-}" ] || { TLS=(--tls-verify=false); HELM_TLS=(--plain-http); }
}

# Adds the commit and its time to the recipe, unless the tree has no git folder.
origin() {
  git -C "$REPOSITORY" rev-parse --git-dir >/dev/null 2>&1 || return 0
  local changes=''; [ -z "$(git -C "$REPOSITORY" status --porcelain)" ] || changes=-changed
  RECIPE+=(--build-arg "REVISION=$(git -C "$REPOSITORY" rev-parse HEAD)$changes")
  RECIPE+=(--build-arg "CREATED=$(git -C "$REPOSITORY" log -1 --format=%cI)")
}

# Functions of each builder: built IMAGE builds the image; digest_of IMAGE NAME pushes it or writes its layout, and prints
# its digest; held IMAGE FILE prints a file of the image.
buildah_built() { buildah "${BUILDAH_BUD[@]}" "${RECIPE[@]}" ${BUILD_FLAGS:-} --tag "$1" .; }
buildah_digest_of() {
  local to=oci:$OUT/$2:${1##*:}
  if [ "$PUSH" ]; then to=docker://$1; else rm -rf "${OUT:?}/$2"; fi
  buildah push --quiet "${TLS[@]}" --format oci --digestfile "$OUT/digest" "$1" "$to" >&2
  cat "$OUT/digest"; rm "$OUT/digest"
}
buildah_held() {
  local container result=0 inside=(); [ "$(id -u)" = 0 ] || inside=(buildah unshare)
  container=$(buildah from --pull-never "$1")
  # shellcheck disable=SC2016
  "${inside[@]}" bash -c 'cat "$(buildah mount "$0")$1"' "$container" "$2" || result=$?
  buildah rm "$container" >/dev/null
  return $result
}
docker_built() { docker build "${RECIPE[@]}" ${BUILD_FLAGS:-} --tag "$1" .; }
docker_digest_of() {  # docker has digests only of pushed images; a local image is named by its tag
  [ "$PUSH" ] || return 0
  docker push --quiet "$1" >&2
  docker inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$1" | sed -n "s|^${1%:*}@||p" | head -n 1
}
docker_held() {
  local container; container=$(docker create "$1")
  docker cp "$container:$2" - | tar -xO
  docker rm "$container" >/dev/null
}

# image NAME VALUE [ENGINE]: builds openseer-NAME and adds it to the chart's values under VALUE
image() {
  local title=openseer-$1 tag=$VERSION digest
  case ${3:-gpu} in gpu) ;; *) tag=$VERSION-$3 ;; esac
  recipe "$1" "${3:-}"; origin
  say "images: $REGISTRY/$title:$tag …"
  (cd "$REPOSITORY" && "${BUILDER}_built" "$REGISTRY/$title:$tag") >&2
  "${BUILDER}_held" "$REGISTRY/$title:$tag" "$SBOM" >"$OUT/$title.cdx.json"
  digest=$("${BUILDER}_digest_of" "$REGISTRY/$title:$tag" "$title")
  [ "$digest" ] || [ "$BUILDER$PUSH" = docker ] || fail "$title: $BUILDER gave no digest"
  printf '%s:\n  repository: %s\n  tag: "%s"\n  digest: "%s"\n' "$2" "$REGISTRY/$title" "$tag" "$digest" >>"$OUT/values.yaml"
  # Written into the chart's own values, so that an installation needs none.
  sed "/^$2:/,/digest: \"\"/ { s|repository: .*|repository: $REGISTRY/$title|; s|tag: \"\"|tag: \"$tag\"|; s|digest: \"\"|digest: \"$digest\"| }" \
    "$OUT/chart/values.yaml" >"$OUT/chart/values.new"
  mv "$OUT/chart/values.new" "$OUT/chart/values.yaml"
}

check
rm -rf "$OUT"; mkdir -p "$OUT"
cp -R "$CHART" "$OUT/chart"
image operator image
image worker workerImage "$ENGINE"
helm package "$OUT/chart" --destination "$OUT" >/dev/null
rm -r "$OUT/chart"
[ -z "$PUSH" ] || helm push "${HELM_TLS[@]}" "$OUT/openseer-$VERSION.tgz" "oci://$REGISTRY/charts" >&2
say "images: in ${OUT#"$PWD"/}: $(cd "$OUT" && echo *)"

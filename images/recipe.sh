# The recipe of the images, sourced by the scripts that build them: images/make.sh for a registry, and cluster/images.sh
# for the nodes of the test cluster. REPOSITORY must be set.
# shellcheck shell=bash
# shellcheck disable=SC2034  # used by the scripts that source this

SBOM=/opt/openseer/sbom.cdx.json  # path of the bill of materials in each image

# recipe operator | recipe worker ENGINE: sets DOCKERFILE, LOCK (a file of requirements/), PACKAGES (folders of the
# image's packages) and RECIPE, the common arguments of `buildah bud` and `docker build`
recipe() {
  DOCKERFILE=Dockerfile.$1 RECIPE=()
  case $1 in
    operator) LOCK=image-operator PACKAGES="core store text process api operator" ;;
    worker) LOCK=image-worker-$2 PACKAGES="core draft store text process worker driver api"; RECIPE=(--build-arg "ENGINE=$2") ;;
  esac
  RECIPE+=(--build-arg "VERSION=$(version)" --file "$DOCKERFILE")
}

version() { sed -n 's/^version = "\(.*\)"/\1/p' "$REPOSITORY/pyproject.toml"; }

# buildah's arguments for a build without a daemon, also in a container; its store keeps the layers for the next build.
BUILDAH_BUD=(bud --network host --isolation chroot --layers --format oci)

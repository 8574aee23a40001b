# The one recipe of our images: whoever builds them sources this, be it for a registry (images/make.sh) or for the test
# cluster's nodes (cluster/images.sh). Needs REPOSITORY.
# shellcheck shell=bash
# shellcheck disable=SC2034  # used by the scripts that source this

SBOM=/opt/openseer/sbom.cdx.json  # where each image holds its own

# recipe operator | recipe worker ENGINE: sets DOCKERFILE, LOCK (a file of requirements/), PACKAGES (folders whose
# packages the image holds) and RECIPE, the arguments that `buildah bud` and `docker build` have in common
recipe() {
  DOCKERFILE=Dockerfile.$1 RECIPE=()
  case $1 in
    operator) LOCK=image-operator PACKAGES="core store text process api operator" ;;
    worker) LOCK=image-worker-$2 PACKAGES="core draft store text process worker driver api"; RECIPE=(--build-arg "ENGINE=$2") ;;
  esac
  RECIPE+=(--build-arg "VERSION=$(version)" --file "$DOCKERFILE")
}

version() { sed -n 's/^version = "\(.*\)"/\1/p' "$REPOSITORY/pyproject.toml"; }

# How buildah builds without a daemon, also in a container; the layers stay in its store for the next build.
BUILDAH_BUD=(bud --network host --isolation chroot --layers --format oci)

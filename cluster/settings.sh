# Common settings of all scripts here: versions, folders, names, addresses, functions. Sourced, never run.
# shellcheck shell=bash
# shellcheck disable=SC2034  # used by the scripts that source this

KUBERNETES=1.36.3 STAGING=v0.36.3 ETCD=v3.6.14 CONTAINERD=v2.3.7 CNI_PLUGINS=v1.9.1
COREDNS=v1.14.0 KWOK=v0.8.0 HELM=v3.21.4 KUBECONFORM=v0.7.0 KARPENTER=v1.14.1
# The oldest version of Go that builds all programs.
GO_AT_LEAST=1.26.6
SUITE=bookworm

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=${HERE%/*}
CACHE=${OPENSEER_CACHE:-$HOME/.cache/openseer}
VERSIONS="$KUBERNETES $ETCD $CONTAINERD $CNI_PLUGINS $COREDNS $KWOK $HELM $KUBECONFORM"
PROGRAMS=$CACHE/programs/$KUBERNETES-$(printf %s "$VERSIONS" | sha256sum | head -c 8)
CNI=$PROGRAMS/cni
STATE=$CACHE/cluster          # the state of a running cluster, which `down` removes
NODES=$CACHE/nodes            # the image stores of nodes, which `down` keeps
IMAGES=$CACHE/images          # OCI layouts of our images, which are loaded into nodes
BUILDAH_ROOT=$CACHE/buildah

# Addresses exist within the cluster's own network namespaces only, so they can be fixed.
NETWORK=10.201.0 SERVICES=10.202.0 PODS=10.203
ADDRESS_OF_PLANE=$NETWORK.1
export PATH=$PROGRAMS:$PATH
export CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1

say() { printf '%s\n' "$*" >&2; }

# fail CODE WORDS…: 2 wrong arguments, 3 this machine cannot run it, 1 other errors
fail() { local code=$1; shift; say "cluster: $*"; exit "$code"; }

# The roots of control groups: version 2 has one tree, version 1 a tree for each controller.
cgroup_roots() {
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup
  else local root; for root in /sys/fs/cgroup/*/; do [ -e "$root/cgroup.procs" ] && echo "${root%/}"; done; fi
}

# A process's start, in clock ticks since the machine's start: with its id it identifies a process, even after the id is
# reused. $STATE/pid/NAME has both.
born() { cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null || true; }
pid_of() { cut -d' ' -f1 "$STATE/pid/$1"; }

# Whether a program runs. A zombie (an ended process that its parent has not waited for) does not.
alive() {
  local pid start
  { read -r pid start <"$STATE/pid/$1"; } 2>/dev/null || return 1
  [ "$(born "$pid")" = "$start" ] && grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$pid/status"
}

# Whether any program of the cluster runs. The folder alone does not show it: it remains after a restart of the machine.
any_alive() {
  local file
  for file in "$STATE"/pid/*; do if alive "$(basename "$file")"; then return 0; fi; done
  return 1
}

# Names of the cluster's nodes: n0 n1 …
nodes() { local folder; for folder in "$STATE"/nodes/n[0-9]*/; do [ -d "$folder" ] && basename "$folder"; done; return 0; }

in_plane() { nsenter --net=/run/netns/os-cp env KUBECONFIG="$STATE/admin.kubeconfig" PATH="$PATH" "$@"; }

ctr_of() { local node=$1; shift; ctr -a "$STATE/nodes/$node/containerd.sock" -n k8s.io "$@"; }

# --- tools that the machine must have ----------------------------------------------------------------------------
# command:Debian package
RUNNING_TOOLS="runc:runc ip:iproute2 nft:nftables openssl:openssl nsenter:util-linux flock:util-linux"
BUILDING_TOOLS="buildah:buildah debootstrap:debootstrap"

# lacking TOOLS…: the Debian packages of missing commands
lacking() {
  local tool
  for tool in "$@"; do PATH=$PATH:/usr/sbin:/sbin command -v "${tool%%:*}" >/dev/null || echo "${tool##*:}"; done | sort -u
}

# need_tools TOOLS…: installs missing tools if INSTALL_TOOLS is yes (with apt), else exits with 3 and names them
need_tools() {
  [ "$(uname -s)" = Linux ] || fail 3 "a cluster on this machine needs Linux"
  [ "$(id -u)" = 0 ] || fail 3 "a cluster on this machine needs root: network namespaces, mounts, control groups"
  local packages; packages=$(lacking "$@" | tr '\n' ' ')
  [ -n "$packages" ] || return 0
  [ "${INSTALL_TOOLS:-}" = yes ] && command -v apt-get >/dev/null ||
    fail 3 "missing: ${packages% } (Debian packages; as root: make cluster-tools)"
  say "tools: apt-get install $packages"
  # shellcheck disable=SC2086
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages; } >&2 ||
    fail 3 "apt-get could not install: $packages"
}
export PATH=$PATH:/usr/sbin:/sbin

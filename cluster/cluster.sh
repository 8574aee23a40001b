#!/usr/bin/env bash
# A real Kubernetes cluster on this machine, without a container engine's daemon or an image registry, for development
# and tests. Each host is a network namespace on one switch; the machine's own network is not changed. As root:
#   cluster.sh up [NODES] [--watch PID]   starts it (2 nodes), or adds nodes; if it did, --watch ends it with process PID
#   cluster.sh down                       removes all of it, also the remains of a crash
#   cluster.sh exec COMMAND…              runs COMMAND inside its network, with KUBECONFIG and its programs on the PATH
#   cluster.sh status | env | leftovers   its programs; settings for a shell; the remains of a cluster that is down
#   cluster.sh load IMAGE…                operator, scripted, cpu (built if necessary), or an archive's file name
#   cluster.sh gpus NODE COUNT            makes NODE report COUNT GPUs
#   cluster.sh cut NODE | join NODE       disconnects a node's network, and connects it again
#   cluster.sh stop-api | start-api       stops the API server, and starts it again
#   cluster.sh restart|pid PROGRAM        PROGRAM is a name in `status`: etcd, kube-scheduler, n0-kubelet …
#   cluster.sh prepare | tools            builds programs and images; installs the Debian packages that it needs
# Exit codes: 0 done, 1 a step failed, 2 wrong arguments, 3 this machine cannot run it (one line has the reason).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
source "$HERE/control_plane.sh"
source "$HERE/node.sh"
source "$HERE/down.sh"

LOCK_PATIENCE=300  # timeout of the lock that `up` and `down` take, in seconds
lock() { mkdir -p "$CACHE"; exec 9>"$CACHE/cluster.lock"; flock -w "$LOCK_PATIENCE" 9 || fail 1 "another up or down has not ended in $LOCK_PATIENCE s"; }

# start HOST NAME COMMAND…: starts a program in a host's network, and stores its command for `restart`
start() {
  local host=$1 name=$2; shift 2
  printf 'exec nsenter --net=/run/netns/%s %s\n' "$host" "$(printf '%q ' "$@")" >"$STATE/run/$name"
  start_again "$name"
}
start_again() {
  setsid bash "$STATE/run/$1" >>"$STATE/log/$1.log" 2>&1 </dev/null 8>&- 9>&- &
  echo "$! $(born $!)" >"$STATE/pid/$1"
}

end() {  # end NAME: SIGTERM, after ten seconds SIGKILL
  local pid; pid=$(pid_of "$1")
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 100); do alive "$1" || return 0; sleep 0.1; done
  kill -9 "$pid" 2>/dev/null || true
  for _ in $(seq 300); do alive "$1" || return 0; sleep 0.1; done
  fail 1 "$1, process $pid, does not end"
}

# await SECONDS PROGRAM WORDS COMMAND…: waits until COMMAND succeeds; else prints WORDS and the end of PROGRAM's log
await() {
  local limit=$1 name=$2 words=$3 deadline=$((SECONDS + $1)); shift 3
  until "$@" >/dev/null 2>&1; do
    if ! alive "$name"; then words="$words: $name has ended"; elif [ "$SECONDS" -ge "$deadline" ]; then words="$words after $limit s"
    else sleep 0.1; continue; fi
    say "--- $STATE/log/$name.log"; tail -n 12 "$STATE/log/$name.log" >&2 || true
    fail 1 "$words"
  done
}

need_up() { alive kube-apiserver || fail 1 "no cluster is up; start one: cluster/cluster.sh up"; }
need_node() { [ -d "$STATE/nodes/${1:-}" ] && [ -n "${1:-}" ] || fail 2 "no node is named \"${1:-}\"; nodes: $(nodes | tr '\n' ' ')"; }

node_is_ready() { in_plane kubectl wait --for=condition=Ready "node/$1" --timeout=1s; }

up() {
  local count=2 watch='' jobs=() node new=() start=$SECONDS
  while [ $# -gt 0 ]; do
    case $1 in
      --watch) watch=${2:?--watch PID}; shift ;;
      [1-9]) count=$1 ;;
      *) fail 2 "up [NODES] [--watch PID]; NODES is 1 to 9" ;;
    esac
    shift
  done
  # shellcheck disable=SC2086
  need_tools $RUNNING_TOOLS
  "$HERE/build.sh" 2>&1 | grep -v 'programs: all' >&2 || [ "${PIPESTATUS[0]}" = 0 ] || exit 1
  lock
  if [ -e "$STATE/up" ] && alive kube-apiserver; then
    say "cluster: is up already"
    recycle_volumes
  else
    take_down
    mkdir -p "$STATE"/{pki,log,pid,run,nodes}
    switch; host os-cp "$ADDRESS_OF_PLANE"
  fi
  for node in $(seq 0 $((count - 1))); do
    [ -d "$STATE/nodes/n$node" ] && continue
    new+=("n$node"); mkdir -p "$STATE/nodes/n$node"
    host "os-n$node" "$(address_of "n$node")"
    start_containerd "n$node" & jobs+=($!)
  done
  [ ${#new[@]} -gt 0 ] || return 0
  [ -e "$STATE/up" ] || control_plane
  for node in "${jobs[@]}"; do wait "$node" || exit 1; done
  routes
  for node in "${new[@]}"; do
    certificate "$node" "/O=system:nodes/CN=system:node:$node" "extendedKeyUsage=clientAuth"
    start_kubelet "$node"
  done
  volumes | in_plane kubectl apply --server-side -f - >/dev/null
  await 180 kube-controller-manager "the default ServiceAccount does not exist" in_plane kubectl get serviceaccount default
  for node in "${new[@]}"; do await 180 "$node-kubelet" "node $node is not Ready" node_is_ready "$node"; done
  touch "$STATE/up"
  [ -z "$watch" ] || { setsid "$HERE/cluster.sh" guard "$watch" >"$STATE/log/guard.log" 2>&1 </dev/null 9>&- & }
  say "cluster: $(nodes | wc -l) nodes Ready after $((SECONDS - start)) s"
}

# Removes the cluster after process PID, for instance a test run, has ended for any reason.
guard() {
  local pid=$1 start
  start=$(born "$pid")
  while [ "$(born "$pid")" = "$start" ]; do
    [ -e "$STATE/up" ] || exit 0
    sleep 1
  done
  "$HERE/cluster.sh" down
}

status() {
  local program
  need_up
  for program in "$STATE"/pid/*; do
    program=$(basename "$program")
    if alive "$program"; then printf '%-26s runs   %4d MB\n' "$program" "$(awk '/VmRSS/ {print int($2 / 1024)}' "/proc/$(pid_of "$program")/status")"
    else printf '%-26s ENDED  %s\n' "$program" "$STATE/log/$program.log"; fi
  done
  in_plane kubectl get nodes -o wide
  for program in $(nodes); do ctr_of "$program" images ls name~=localhost | awk -v node="$program" 'NR > 1 {print node, $1, $4, $5}'; done
  du -sh "$CACHE"/*/ 2>/dev/null || true
}

gpus() {
  local patch=() field
  for field in capacity allocatable; do patch+=("{\"op\": \"add\", \"path\": \"/status/$field/nvidia.com~1gpu\", \"value\": \"$2\"}"); done
  in_plane kubectl patch node "$1" --subresource=status --type=json -p "[${patch[0]}, ${patch[1]}]"
}

load() {
  local image node
  for image in "$@"; do
    if [ -f "$image" ]; then for node in $(nodes); do ctr_of "$node" images import "$image"; done
    else "$HERE/images.sh" "$image"; fi
  done
}

main() {
  local verb=${1:-help}; shift || true
  case $verb in
    up) up "$@" ;;
    down) need_tools ip:iproute2 flock:util-linux; lock; take_down; say "cluster: is down" ;;
    guard) guard "$@" ;;
    exec) need_up; in_plane "$@" ;;
    env) need_up; printf 'export KUBECONFIG=%q\nexport PATH=%q:$PATH\n' "$STATE/admin.kubeconfig" "$PROGRAMS" ;;
    status) status ;;
    leftovers) leftovers ;;
    load) need_up; load "$@" ;;
    gpus) need_up; need_node "${1:-}"; gpus "$1" "${2:?gpus NODE COUNT}" ;;
    pid) [ -e "$STATE/pid/${1:-}" ] && [ -n "${1:-}" ] || fail 2 "no program is called ${1:-}; see: cluster/cluster.sh status"; pid_of "$1" ;;
    cut) need_up; need_node "${1:-}"; ip -n os-sw link set "v-os-$1" down ;;
    join) need_up; need_node "${1:-}"; ip -n os-sw link set "v-os-$1" up ;;
    stop-api) need_up; end kube-apiserver ;;
    start-api) [ -e "$STATE/up" ] || need_up; alive kube-apiserver || start_again kube-apiserver; await_api ;;
    restart) [ -e "$STATE/run/${1:-}" ] && [ -n "${1:-}" ] || fail 2 "no program is called ${1:-}; see: cluster/cluster.sh status"; end "$1"; start_again "$1" ;;
    prepare) INSTALL_TOOLS=yes; export INSTALL_TOOLS
      # shellcheck disable=SC2086
      need_tools $RUNNING_TOOLS $BUILDING_TOOLS
      "$HERE/build.sh"; "$HERE/images.sh" operator scripted cpu ;;
    tools) INSTALL_TOOLS=yes
      # shellcheck disable=SC2086
      need_tools $RUNNING_TOOLS $BUILDING_TOOLS ;;
    help|-h|--help) sed -n '2,16s/^# \{0,1\}//p' "$0" ;;
    *) sed -n '2,16s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
}
main "$@"; exit

# Removes the whole cluster, also after a crash: it finds the actual processes, mounts, namespaces and control groups, and
# reads no records of them. It kills all processes, so none can refuse to stop. The next start of containerd clears the
# state that a killed containerd leaves (start_containerd). Sourced by cluster.sh.
# shellcheck shell=bash

our_namespaces() { find /run/netns -maxdepth 1 -regex '.*/os-\(sw\|cp\|n[0-9]+\)' 2>/dev/null || true; }
our_cgroups() { local root; for root in $(cgroup_roots); do find "$root" -maxdepth 1 -regex '.*/os-n[0-9]+' 2>/dev/null; done; return 0; }

# Prints this script and its callers, which are not killed: a shell within the cluster's network may call `down`, too.
ancestors() { local pid=$BASHPID; while [ "$pid" -gt 1 ]; do echo "$pid"; pid=$(awk '/^PPid:/ {print $2}' "/proc/$pid/status"); done; }

# Prints the processes in our control groups or network namespaces, and processes of our programs that name our state folder.
our_processes() {
  local group process file known=' '
  for group in $(our_cgroups); do find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null; done || true
  for file in $(our_namespaces); do known+="$(stat -L -c %i "$file") "; done
  for process in /proc/[0-9]*; do
    file=$(stat -L -c %i "$process/ns/net" 2>/dev/null) || continue
    if [[ $known == *" $file "* ]]; then echo "${process#/proc/}"; continue; fi
    [[ $(readlink "$process/exe" 2>/dev/null) == "$PROGRAMS"/* ]] || continue
    if grep -qsF -- "$STATE/" "$process/cmdline" "$process/environ"; then echo "${process#/proc/}"; fi
  done
  return 0
}

PATIENCE=120  # timeout for the end of killed processes, in seconds
end_processes() {
  local spare pid left deadline=$((SECONDS + PATIENCE))
  spare=" $(ancestors | tr '\n' ' ')"
  while :; do
    left=()
    for pid in $(our_processes | sort -u); do [[ $spare == *" $pid "* ]] || left+=("$pid"); done
    [ ${#left[@]} -gt 0 ] || return 0
    [ "$SECONDS" -lt "$deadline" ] || fail 1 "these processes do not end: ${left[*]}"
    for pid in "${left[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    sleep 0.1
  done
}

our_mounts() { awk -v a="$STATE/" -v b="$NODES/" 'index($2, a) == 1 || index($2, b) == 1 {print $2}' /proc/mounts | sort -r; }

# Removes our files from fixed folders of programs; they are named by the ids of our containers.
clear_fixed_folders() {
  local bundle link
  for bundle in "$STATE"/nodes/*/containerd/io.containerd.runtime.v2.task/k8s.io/*/; do
    [ -d "$bundle" ] || continue
    { grep -soh '/run/containerd/s/[0-9a-f]\{16,\}' "$bundle/bootstrap.json" "$bundle/address" || true; } | xargs -r rm -f
    rm -rf "/run/containerd/runc/k8s.io/$(basename "$bundle")"
    rm -f /var/lib/cni/results/*-"$(basename "$bundle")"-*
  done
  for link in /var/log/containers/*; do
    case $(readlink "$link" || true) in "$STATE"/*) rm -f "$link" ;; esac
  done
}

# Prints the remains of a cluster, a line each; none after `down`.
leftovers() {
  local pid spare; spare=" $(ancestors | tr '\n' ' ')"
  for pid in $(our_processes | sort -u); do
    [[ $spare == *" $pid "* ]] || [ ! -e "/proc/$pid" ] || echo "process $pid $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | cut -c 1-80)"
  done
  our_mounts | sed 's/^/mount /'
  our_namespaces | sed 's/^/namespace /'
  our_cgroups | sed 's/^/cgroup /'
  if [ -e "$STATE" ]; then echo "folder $STATE"; fi
}

take_down() {
  local target
  refuse_foreign
  end_processes
  our_mounts | while read -r target; do umount -l "$target" || true; done
  clear_fixed_folders
  for target in $(our_namespaces); do ip netns del "$(basename "$target")"; done
  for target in $(our_cgroups); do remove_cgroup "$target"; done
  [ -z "$(our_mounts)" ] || fail 1 "still mounted: $(our_mounts | head -n 3 | tr '\n' ' ')"
  rm -rf --one-file-system "$STATE"
}

remove_cgroup() {
  # A control group is busy for a short time after its processes were killed.
  for _ in $(seq 600); do
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ -e "$1" ] || return 0
    sleep 0.1
  done
  fail 1 "the control group $1 cannot be removed"
}

# Names and addresses are fixed, so a machine can have only one cluster: fails if it belongs to another cache folder.
refuse_foreign() {
  local pid state
  [ -e /run/netns/os-cp ] || return 0
  for pid in $(ip netns pids os-cp); do
    state=$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | sed -n 's/^--kubeconfig=\(.*\)\/admin.kubeconfig$/\1/p')
    [ -z "$state" ] || [ "$state" = "$STATE" ] || fail 1 "another cluster is up on this machine; its folder: $state"
  done
}

# A node: network namespace, containerd, kubelet, kube-proxy. Sourced by cluster.sh.
# shellcheck shell=bash

# host NAME IP: makes a namespace with one interface on the switch
host() {
  ip netns add "$1"; ip -n "$1" link set lo up
  ip link add "v-$1" netns os-sw type veth peer name eth0 netns "$1"
  ip -n os-sw link set "v-$1" master br0 up
  ip -n "$1" addr add "$2/24" dev eth0; ip -n "$1" link set eth0 up; ip -n "$1" route add default via "$2"
  # nsenter, since `ip netns exec` mounts another /sys, where the kubelet finds no control groups.
  nsenter --net="/run/netns/$1" sysctl -q -w net.ipv4.ip_forward=1
}

switch() { ip netns add os-sw; ip -n os-sw link set lo up; ip -n os-sw link add br0 type bridge; ip -n os-sw link set br0 up; }

address_of() { echo "$NETWORK.$((10 + ${1#n}))"; }

# Adds routes from every host to every node's pods.
routes() {
  local here there
  for there in $(nodes); do
    ip -n os-cp route replace "$PODS.${there#n}.0/24" via "$(address_of "$there")"
    for here in $(nodes); do
      [ "$here" = "$there" ] || ip -n "os-$here" route replace "$PODS.${there#n}.0/24" via "$(address_of "$there")"
    done
  done
}

# Makes a control group in each controller. The kubelet puts all pods below it, so that `down` finds them.
cgroups_of() {
  local node=$1 root file
  for root in $(cgroup_roots); do
    mkdir -p "$root/os-$node"
    if [ -e "$root/cgroup.controllers" ]; then
      for file in "$root" "$root/os-$node"; do echo "+cpu +cpuset +memory +pids +io" >"$file/cgroup.subtree_control" 2>/dev/null || true; done
    fi
    # In version 1 a new cpuset is empty, and a group without processors accepts no process.
    for file in cpuset.cpus cpuset.mems; do
      if [ -e "$root/os-$node/$file" ] && [ ! -e "$root/cgroup.controllers" ]; then cat "$root/$file" >"$root/os-$node/$file"; fi
    done
  done
}

configure_node() {
  local node=$1 folder=$STATE/nodes/$1; mkdir -p "$folder/cni" "$NODES/$node/containerd"
  cat >"$folder/cni/10-pods.conflist" <<END
{"cniVersion": "1.0.0", "name": "openseer-test", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {"type": "host-local",
   "dataDir": "$folder/ipam", "ranges": [[{"subnet": "$PODS.${node#n}.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
  # restrict_oom_score_adj: a machine may lack CAP_SYS_RESOURCE
  cat >"$folder/containerd.toml" <<END
version = 3
root = "$NODES/$node/containerd"
state = "$folder/containerd"
[grpc]
  address = "$folder/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "docker.io/local/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["$CNI"]
  conf_dir = "$folder/cni"
END
  # failCgroupV1: version 1 is refused by default, but works. imageGC: images are imported, never pulled, so the kubelet
  # must not remove them.
  cat >"$folder/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /os-$node
containerRuntimeEndpoint: unix://$folder/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $STATE/pki/ca.crt}}
authorization: {mode: Webhook}
enforceNodeAllocatable: []
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
clusterDNS: [$ADDRESS_OF_PLANE]
clusterDomain: cluster.local
resolvConf: ""
podLogsDir: $folder/logs
nodeStatusUpdateFrequency: 5s
END
}

# containerd needs no API server, so it starts at the same time.
start_containerd() {
  local node=$1 folder=$STATE/nodes/$1 pass found
  cgroups_of "$node"; configure_node "$node"
  for pass in first second; do
    start "os-$node" "$node-containerd" containerd -c "$folder/containerd.toml"
    await 120 "$node-containerd" "containerd of $node does not answer" ctr_of "$node" version
    # A killed containerd left state of ended processes, which this containerd has read: remove it and start again.
    found=$(ctr_of "$node" containers ls -q; ctr_of "$node" sandboxes ls 2>/dev/null | awk 'NR > 1 {print $1}')
    [ "$pass" = first ] && [ -n "$found" ] || break
    ctr_of "$node" tasks ls -q | xargs -r -n 1 ctr -a "$folder/containerd.sock" -n k8s.io tasks rm -f >/dev/null 2>&1 || true
    ctr_of "$node" containers ls -q | xargs -r -n 1 ctr -a "$folder/containerd.sock" -n k8s.io containers rm >/dev/null 2>&1 || true
    ctr_of "$node" sandboxes ls | awk 'NR > 1 {print $1}' |
      xargs -r -n 1 ctr -a "$folder/containerd.sock" -n k8s.io sandboxes rm -f >/dev/null 2>&1 || true
    end "$node-containerd"
  done
  if [ -z "$(ctr_of "$node" images ls -q name==docker.io/local/pause:1)" ]; then
    ctr_of "$node" images import --label io.cri-containerd.pinned=pinned "$PROGRAMS/pause.tar" >/dev/null
  fi
}

start_kubelet() {
  local node=$1 folder=$STATE/nodes/$1
  start "os-$node" "$node-kubelet" kubelet --config="$folder/kubelet.yaml" --kubeconfig="$STATE/$node.kubeconfig" \
    --hostname-override="$node" --node-ip="$(address_of "$node")" --root-dir="$folder/kubelet" --cert-dir="$folder/pki"
  # The zeros make kube-proxy keep the machine's settings for connection tracking.
  start "os-$node" "$node-kube-proxy" kube-proxy --kubeconfig="$STATE/admin.kubeconfig" --hostname-override="$node" \
    --cluster-cidr="$PODS.0.0/16" --proxy-mode=nftables --conntrack-max-per-core=0 --conntrack-min=0 \
    --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}

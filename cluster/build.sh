#!/usr/bin/env bash
# Builds every program of the cluster from Go modules alone, into the cache folder keyed by their versions. It skips
# existing programs, so an interrupted build resumes. It takes about 13 minutes on two cores without a cache, mostly for
# the API server. 2 GiB of modules remain in Go's module cache; the 5 GiB of the build cache are removed.
# runc comes from Debian, because a runc built without libseccomp's headers refuses the default seccomp profile.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

KUBERNETES_PROGRAMS="kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet kube-proxy"
OTHERS="etcd containerd containerd-shim-runc-v2 ctr coredns kwok helm kubeconform pause.tar"
PLUGINS="bridge loopback host-local portmap"
# Not a part of the cluster: its folder is named by its own version, so that a new version rebuilds no other program.
NODE_AUTOSCALER=karpenter-$KARPENTER/karpenter-kwok
# Modules in Kubernetes' own repository, which have version 0.0.0 in its go.mod.
STAGED="api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap
  code-generator component-base component-helpers controller-manager cri-api cri-client cri-streaming csi-translation-lib
  dynamic-resource-allocation endpointslice externaljwt kms kube-aggregator kube-controller-manager kube-proxy
  kube-scheduler kubectl kubelet metrics mount-utils pod-security-admission sample-apiserver sample-cli-plugin
  sample-controller streaming"

# install_module TARGET PACKAGE VERSION: `go install PACKAGE@VERSION`, then an atomic move
install_module() {
  GOBIN=$WORK/bin go install -trimpath -ldflags "-s -w" "$2@$3"
  mv "$WORK/bin/$(basename "$2")" "$1"
}

kubernetes() {  # kubernetes PROGRAM TARGET
  local folder=$WORK/kubernetes program module version=k8s.io/component-base/version client=k8s.io/client-go/pkg/version
  if [ ! -d "$folder" ]; then
    mkdir "$folder"
    { printf 'module openseer.test/kubernetes\ngo 1.26.0\ngodebug default=go1.26\n'
      printf 'require k8s.io/kubernetes v%s\nreplace (\n' "$KUBERNETES"
      for module in $STAGED; do echo "  k8s.io/$module => k8s.io/$module $STAGING"; done; echo ')'; } >"$folder/go.mod"
    { printf '//go:build tools\npackage tools\nimport (\n'
      for program in $KUBERNETES_PROGRAMS; do echo " _ \"k8s.io/kubernetes/cmd/$program\""; done; echo ')'; } >"$folder/tools.go"
    (cd "$folder" && GOFLAGS=-mod=mod go mod tidy)
  fi
  # Without its version the API server has wrong data under /version, and Helm refuses charts.
  (cd "$folder" && GOFLAGS=-mod=mod go build -trimpath -o "$2.new" -ldflags "-s -w -X $version.gitVersion=v$KUBERNETES \
    -X $version.gitMajor=${KUBERNETES%%.*} -X $version.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES") \
    -X $client.gitVersion=v$KUBERNETES" "k8s.io/kubernetes/cmd/$1")
  mv "$2.new" "$2"
}

etcd() {  # etcd TARGET: etcd's own main package is in a module with replace directives, which `go install` refuses
  local folder=$WORK/etcd; mkdir "$folder"
  printf 'module openseer.test/etcd\ngo 1.26.0\nrequire go.etcd.io/etcd/server/v3 %s\n' "$ETCD" >"$folder/go.mod"
  printf 'package main\nimport ("os"; "go.etcd.io/etcd/server/v3/etcdmain")\nfunc main() { etcdmain.Main(os.Args) }\n' >"$folder/main.go"
  (cd "$folder" && GOFLAGS=-mod=mod go mod tidy && GOFLAGS=-mod=mod go build -trimpath -ldflags "-s -w" -o "$1.new" .)
  mv "$1.new" "$1"
}

karpenter() {  # karpenter TARGET: Karpenter with its simulated cloud (a binary named kwok, like that of kwok), and its CRDs
  local crds module; crds=$(dirname "$1")/crds
  module=$(go mod download -json "sigs.k8s.io/karpenter@$KARPENTER" | sed -n 's/^\s*"Dir": "\(.*\)",$/\1/p')
  mkdir -p "$crds" && install -m 0644 "$module"/kwok/{charts,apis}/crds/*.yaml "$crds" &&
    install_module "$1" sigs.k8s.io/karpenter/kwok "$KARPENTER"
}

pause() {  # pause TARGET: the image of a pod's sandbox, docker.io/local/pause:1: one static program that waits
  local folder=$WORK/pause layer config; mkdir -p "$folder/layer"
  cat >"$folder/main.go" <<'GO'
package main

import (
	"os"
	"os/signal"
	"syscall"
)

// Waits for SIGTERM, and as process 1 of a pod reaps the processes that its containers leave.
func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for got := range signals {
		if got != syscall.SIGCHLD {
			return
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}
GO
  (cd "$folder" && GO111MODULE=off go build -trimpath -ldflags "-s -w" -o layer/pause main.go
    tar -C layer --numeric-owner --owner=0 --group=0 --mtime=@0 -cf layer.tar pause
    layer=$(sha256sum layer.tar | cut -d' ' -f1)
    printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/pause"],"User":"65535:65535"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
      "$(go env GOARCH)" "$layer" >config.json
    printf '[{"Config":"config.json","RepoTags":["docker.io/local/pause:1"],"Layers":["layer.tar"]}]' >manifest.json
    tar -cf "$1.new" manifest.json config.json layer.tar)
  mv "$1.new" "$1"
}

build() {  # build PROGRAM TARGET
  case $1 in
    kubeconform) install_module "$2" github.com/yannh/kubeconform/cmd/kubeconform "$KUBECONFORM" ;;
    kube*) kubernetes "$1" "$2" ;;
    etcd) etcd "$2" ;;
    pause.tar) pause "$2" ;;
    containerd*|ctr) install_module "$2" "github.com/containerd/containerd/v2/cmd/$1" "$CONTAINERD" ;;
    coredns) install_module "$2" github.com/coredns/coredns "$COREDNS" ;;
    kwok) install_module "$2" sigs.k8s.io/kwok/cmd/kwok "$KWOK" ;;
    helm) install_module "$2" helm.sh/helm/v3/cmd/helm "$HELM" ;;
    karpenter-*) karpenter "$2" ;;
    cni/*) install_module "$2" "github.com/containernetworking/plugins/plugins/$(plugin_folder "${1#cni/}")" "$CNI_PLUGINS" ;;
  esac
}

plugin_folder() {
  case $1 in host-local) echo ipam/host-local ;; portmap) echo meta/portmap ;; *) echo "main/$1" ;; esac
}

go_is_there() {
  local have
  command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
  command -v go >/dev/null || fail 3 "missing: go $GO_AT_LEAST or newer, which builds the cluster's programs"
  have=$(GOTOOLCHAIN=local go env GOVERSION); have=${have#go}
  [ "$(printf '%s\n' "$GO_AT_LEAST" "$have" | sort -V | head -n 1)" = "$GO_AT_LEAST" ] ||
    fail 3 "missing: go $GO_AT_LEAST or newer, which builds the cluster's programs; found $have"
}

main() {
  local all=() plugin program missing=() number=0 target log=$CACHE/build.log
  for plugin in $PLUGINS; do all+=("cni/$plugin"); done
  # shellcheck disable=SC2206
  all=($KUBERNETES_PROGRAMS $OTHERS "${all[@]}" "$NODE_AUTOSCALER")
  for program in "${all[@]}"; do [ -e "$PROGRAMS/$program" ] || missing+=("$program"); done
  [ ${#missing[@]} -gt 0 ] || { say "programs: all ${#all[@]} are in $PROGRAMS"; return; }
  go_is_there
  mkdir -p "$CNI"; exec 8>"$CACHE/build.lock"
  flock -n 8 || { say "programs: another build runs; waiting for it"; flock -w 3600 8 || fail 1 "it took over an hour"; }
  WORK=$(mktemp -d "$CACHE/build.XXXXXX"); trap 'chmod -R u+w "$WORK" && rm -rf "$WORK"' EXIT
  mkdir "$WORK/bin"; : >"$log"
  export CGO_ENABLED=0 GOTOOLCHAIN=local GOCACHE=$CACHE/go-build
  for program in "${all[@]}"; do
    number=$((number + 1)); target=$PROGRAMS/$program
    [ -e "$target" ] && continue
    say "programs $number/${#all[@]}: $program … (${SECONDS} s so far)"
    build "$program" "$target" >>"$log" 2>&1 || { tail -n 15 "$log" >&2; fail 1 "$program was not built; the whole log: $log"; }
  done
  rm -rf "$GOCACHE"
  say "programs: all ${#all[@]} built in $SECONDS s, in $PROGRAMS"
}
main; exit

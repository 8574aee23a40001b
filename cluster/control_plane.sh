# The control plane, in the network namespace os-cp. Sourced by cluster.sh.
# shellcheck shell=bash

# authority: makes the CA; certificate NAME SUBJECT EXTENSIONS: makes a key, a certificate and a kubeconfig
authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -keyout "$STATE/pki/ca.key" \
    -out "$STATE/pki/ca.crt" -subj /CN=openseer-test 2>/dev/null
}
certificate() {
  local pki=$STATE/pki
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$pki/$1.key" -out "$pki/$1.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 365 -out "$pki/$1.crt" \
    -extfile <(echo "$3") 2>/dev/null
  cat >"$STATE/$1.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters: [{name: openseer-test, cluster: {server: "https://$ADDRESS_OF_PLANE:6443", certificate-authority: "$pki/ca.crt"}}]
users: [{name: $1, user: {client-certificate: "$pki/$1.crt", client-key: "$pki/$1.key"}}]
contexts: [{name: openseer-test, context: {cluster: openseer-test, user: $1}}]
current-context: openseer-test
END
  chmod 600 "$STATE/$1.kubeconfig" "$pki/$1.key"
}

control_plane() {
  local pki=$STATE/pki
  authority
  certificate admin "/O=system:masters/CN=admin" "extendedKeyUsage=clientAuth"
  certificate apiserver "/CN=kube-apiserver" \
    "subjectAltName=IP:127.0.0.1,IP:$ADDRESS_OF_PLANE,IP:$SERVICES.1,DNS:localhost,DNS:kubernetes.default.svc"
  certificate to-kubelet "/O=system:masters/CN=kube-apiserver-kubelet-client" "extendedKeyUsage=clientAuth"
  openssl ecparam -name prime256v1 -genkey -noout -out "$pki/accounts.key" 2>/dev/null
  openssl ec -in "$pki/accounts.key" -pubout -out "$pki/accounts.pub" 2>/dev/null
  # Logs the user and the object of each write in one file, for tests of the operator's writes.
  printf 'apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- {level: None, verbs: [get, list, watch]}\n- {level: Metadata}\n' >"$STATE/audit.yaml"

  start os-cp etcd etcd --data-dir "$STATE/etcd" --listen-client-urls=http://127.0.0.1:2379 \
    --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380 --unsafe-no-fsync=true
  start os-cp kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --cert-dir="$pki/generated" \
    --client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --secure-port=6443 --bind-address=0.0.0.0 --advertise-address="$ADDRESS_OF_PLANE" --service-cluster-ip-range="$SERVICES.0/24" \
    --allow-privileged=true --authorization-mode=Node,RBAC --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/accounts.pub" --service-account-signing-key-file="$pki/accounts.key" \
    --kubelet-preferred-address-types=InternalIP --kubelet-client-certificate="$pki/to-kubelet.crt" \
    --kubelet-client-key="$pki/to-kubelet.key" --audit-policy-file="$STATE/audit.yaml" \
    --audit-log-path="$STATE/log/audit.json" --audit-log-maxsize=100 --audit-log-maxbackup=1
  await_api
  # A shorter grace period for nodes than the default of 50 s, because tests wait until a lost node is detected.
  start os-cp kube-controller-manager kube-controller-manager --kubeconfig="$STATE/admin.kubeconfig" \
    --root-ca-file="$pki/ca.crt" --service-account-private-key-file="$pki/accounts.key" --use-service-account-credentials \
    --leader-elect=false --node-monitor-grace-period=20s --kube-api-qps=200 --kube-api-burst=400
  start os-cp kube-scheduler kube-scheduler --kubeconfig="$STATE/admin.kubeconfig" --leader-elect=false \
    --kube-api-qps=200 --kube-api-burst=400
  printf '.:53 {\n bind %s\n kubernetes cluster.local {\n  kubeconfig %s\n }\n errors\n cache 5\n}\n' \
    "$ADDRESS_OF_PLANE" "$STATE/admin.kubeconfig" >"$STATE/Corefile"
  start os-cp coredns coredns -conf "$STATE/Corefile"
}

await_api() { await 180 kube-apiserver "the API server is not ready" api_is_ready; }
api_is_ready() { in_plane kubectl get --raw /readyz --request-timeout=2s; }

# A default StorageClass, and volumes that are folders of each node, writable for all users: pods run as uid 65532. With
# Retain only `up` empties a released volume, see recycle_volumes.
VOLUMES=80 VOLUME_SIZE=5Gi
volumes() {
  local node number
  echo '{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: local, annotations: {storageclass.kubernetes.io/is-default-class: "true"}},'
  echo ' provisioner: kubernetes.io/no-provisioner, volumeBindingMode: WaitForFirstConsumer, reclaimPolicy: Retain}'
  for node in $(nodes); do
    for number in $(seq -w 0 $((VOLUMES - 1))); do
      mkdir -p "$STATE/nodes/$node/volumes/$number"; chmod 0777 "$STATE/nodes/$node/volumes/$number"
      cat <<END
---
{apiVersion: v1, kind: PersistentVolume, metadata: {name: $node-$number},
 spec: {capacity: {storage: $VOLUME_SIZE}, accessModes: [ReadWriteOnce, ReadWriteMany], storageClassName: local, persistentVolumeReclaimPolicy: Retain,
  local: {path: "$STATE/nodes/$node/volumes/$number"},
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$node]}]}]}}}}
END
    done
  done
}

# Empties volumes whose claims were deleted, and makes them available again.
recycle_volumes() {
  local name
  in_plane kubectl get pv -o 'jsonpath={range .items[?(@.status.phase=="Released")]}{.metadata.name}{"\n"}{end}' |
    while read -r name; do
      find "$STATE/nodes/${name%-*}/volumes/${name#*-}" -mindepth 1 -delete
      in_plane kubectl patch pv "$name" --type=json -p '[{"op":"remove","path":"/spec/claimRef"}]' >/dev/null </dev/null
    done
}

"""The shared objects of a job: Services, policies, the configuration and the volume of the results."""

import json
from typing import Any

from openseer_core.manifest.fleet import GANG_PORT
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.store_url import REDIS_PORT, manages_store
from openseer_core.plan.actions import KV_POOL_OBJECT, ROWS_OBJECT
from openseer_core.plan.scaling import max_unavailable
from openseer_operator.objects.kv_pool import (
    KV_POOL,
    has_pool_pod,
    kv_pool_policy,
    kv_pool_service,
    kv_pool_stateful_set,
)
from openseer_operator.objects.managed_redis import store_service
from openseer_operator.objects.names import (
    ROLE_LABEL,
    config_name,
    inherit,
    metadata,
    output_name,
    selector,
    with_template_hash,
    workers_name,
)
from openseer_operator.objects.pod_parts import service_port, volume_claim_spec
from openseer_operator.objects.pods import HTTP_PORT
from openseer_operator.objects.rows import has_rows_pod, rows_deployment, rows_service
from openseer_operator.settings import OperatorSettings

DNS_PORTS = (53, 5353)
"""Ports of DNS. If the egress of jobs' pods is restricted, these ports stay open to every address, because the DNS of a
cluster may run on its nodes. Policies apply to the port of the pod behind a Service, which is 5353 in OpenShift."""


def shared_objects(
    job: RolloutJob, uid: str, settings: OperatorSettings, standing: int, *, secret: str, runs: bool = True
) -> dict[str, dict[str, Any]]:
    """All shared objects by key, except the StatefulSet of the managed Redis (`store_stateful_set`) and its Secret
    (`store_secret`).

    `standing`: number of workers that the PodDisruptionBudget counts (`standing_workers`); `secret`: name of the
    managed Redis' Secret; `runs`: whether the job runs. Raises InputError for rows of routed experts without a volume.
    """
    objects = {
        "serviceAccount": _service_account(job, uid),
        "config": _config(job, uid),
        "workersService": _workers_service(job, uid),
        "disruptionBudget": _disruption_budget(job, uid, standing),
    }
    if settings.network_policies:
        objects["networkPolicy"] = _network_policy(job, uid, settings)
        if has_pool_pod(job):
            objects["kvPoolPolicy"] = kv_pool_policy(job, uid)
    if job.spec.mode == "batch" and job.spec.output.pvc is None:
        objects["output"] = _output(job, uid)
    if manages_store(job):
        objects["storeService"] = store_service(job, uid)
    if has_pool_pod(job):
        objects["kvPoolService"] = kv_pool_service(job, uid)
        objects[KV_POOL_OBJECT] = kv_pool_stateful_set(job, uid, settings, runs=runs)
    if has_rows_pod(job):
        objects["rowsService"] = rows_service(job, uid)
        objects[ROWS_OBJECT] = rows_deployment(job, uid, settings, secret=secret, runs=runs)
    return {key: with_template_hash(inherit(manifest, job, settings.pods)) for key, manifest in objects.items()}


def _service_account(job: RolloutJob, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(job, uid, job.name, "shared"),
        "automountServiceAccountToken": False,
    }


def _config(job: RolloutJob, uid: str) -> dict[str, Any]:
    """The ConfigMap with the job's manifest for its workers and its driver."""
    read = {"metadata": {"name", "namespace", "labels"}, "api_version": True, "kind": True, "spec": True}
    document = job.model_dump(mode="json", by_alias=True, exclude_none=True, include=read)
    document["metadata"]["namespace"] = job.namespace
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(job, uid, config_name(job), "shared"),
        "data": {"job.json": json.dumps(document, indent=1)},
    }


def _workers_service(job: RolloutJob, uid: str) -> dict[str, Any]:
    """The headless Service. It gives the pods of a gang DNS names before they are ready, so that they can connect."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, uid, workers_name(job), "shared"),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(job, "worker"),
            "ports": [service_port("gang", GANG_PORT), service_port("http", HTTP_PORT)],
        },
    }


def _disruption_budget(job: RolloutJob, uid: str, standing: int) -> dict[str, Any]:
    """The PodDisruptionBudget of the workers' pods.

    It sets minAvailable, in pods. Kubernetes would compute maxUnavailable from the job's scale, which counts workers,
    and a gang has several pods. The first evicted pod of a gang ends the others. Workers that cannot be scheduled do
    not count: the drain of a node would wait for them for ever.
    """
    pods = standing * job.spec.workers.parallelism.nodes
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(job, uid, workers_name(job), "shared"),
        "spec": {
            "minAvailable": max(0, pods - max_unavailable(job)),
            "selector": {"matchLabels": selector(job, "worker")},
            # A pod that is not ready may always be evicted.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _network_policy(job: RolloutJob, uid: str, settings: OperatorSettings) -> dict[str, Any]:
    """The NetworkPolicy. It permits connections from the job's own pods, the operator, the gateway and the readers of
    metrics. If egress is restricted, it permits connections only to the job's own pods, DNS and the listed
    destinations. It excludes the pod of a KV pool, which has a stricter policy, because the permissions of policies add
    up."""
    but_pool = {"matchExpressions": [{"key": ROLE_LABEL, "operator": "NotIn", "values": [KV_POOL]}]}
    operators = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}}}
    own = {"podSelector": {"matchLabels": selector(job)}}
    ingress: list[dict[str, Any]] = [
        {"from": [own]},
        {"from": [operators], "ports": [_port(REDIS_PORT), _port(HTTP_PORT)]},
    ]
    if settings.metrics_from:
        ingress.append({"from": list(settings.metrics_from), "ports": [_port(HTTP_PORT)]})
    egress: dict[str, Any] = {}
    if settings.egress is not None:
        dns = {"ports": [_port(number, protocol) for number in DNS_PORTS for protocol in ("UDP", "TCP")]}
        egress = {"egress": [{"to": [own]}, dns, *settings.egress]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(job, uid, job.name, "shared"),
        "spec": {
            "podSelector": {"matchLabels": selector(job), **(but_pool if has_pool_pod(job) else {})},
            "policyTypes": ["Ingress", *(["Egress"] if egress else [])],
            "ingress": ingress,
            **egress,
        },
    }


def _port(number: int, protocol: str = "TCP") -> dict[str, Any]:
    return {"protocol": protocol, "port": number}


def _output(job: RolloutJob, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(job, uid, output_name(job), "shared"),
        "spec": volume_claim_spec(job.spec.output.size, job.spec.output.storage_class),
    }

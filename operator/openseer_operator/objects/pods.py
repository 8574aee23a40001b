"""The manifests of the pods of a job's workers and driver."""

from collections.abc import Sequence
from typing import Any

from openseer_core.manifest.job import Resources, RolloutJob
from openseer_core.plan.scaling import template_hash
from openseer_operator.objects.kv_pool import has_pool_pod, kv_pool_address
from openseer_operator.objects.names import (
    ATTEMPT_ANNOTATION,
    AVOID_ANNOTATION,
    RANK_LABEL,
    SAFE_TO_EVICT_ANNOTATION,
    TEMPLATE_ANNOTATION,
    WORKER_LABEL,
    config_name,
    driver_pod_name,
    inherit,
    metadata,
    output_name,
    stamp_annotations,
    worker_pod_name,
    workers_name,
)
from openseer_operator.objects.overlay import overlay_template
from openseer_operator.objects.pod_parts import (
    JOB_FOLDER,
    Mounts,
    base_pod_spec,
    container_security,
    inside,
    log_variables,
    probe,
    resource_requirements,
    secret_variable,
    store_variable,
)
from openseer_operator.objects.rows import add_rows
from openseer_operator.pod_settings import JobPodSettings
from openseer_operator.settings import OperatorSettings

HTTP_PORT = 8080
"""Port of probes and metrics of workers and driver."""
GPU = "nvidia.com/gpu"
WORKER, DRIVER = "worker", "driver"
"""Names of openseer's own container in the pods of workers and driver."""

EXIT_SECONDS = 5
"""Time for a process to exit, in addition to the grace period for its work, in seconds."""
DRIVER_GRACE_SECONDS = 30
"""Grace period in which the driver writes and acknowledges its results, in seconds."""

_CACHE, _MODELS, _PROMPTS, _OUTPUT = "/cache", "/models", "/prompts", "/output"
_KV_POOL = "/kv-pool"
_CERTIFICATES = "/etc/openseer-ca"
_DRIVER_RESOURCES = {"requests": {"cpu": "250m", "memory": "512Mi"}}
_IMAGE_OWNED = {"image": "set spec.image", "imagePullPolicy": "set spec.imagePullPolicy"}
_GRACE_OWNED = {"terminationGracePeriodSeconds": "set spec.workers.gracePeriodSeconds"}


def worker_pod(
    job: RolloutJob,
    uid: str,
    settings: OperatorSettings,
    image: str,
    *,
    index: int,
    rank: int,
    attempt: int,
    secret: str,
    avoid: Sequence[str] = (),
) -> dict[str, Any]:
    """One pod of a worker. `rank`: its rank in a gang, else 0; `secret`: name of the managed Redis' Secret; `avoid`:
    nodes on which the pod must not be placed.

    Raises InputError for a template that overrides fields of the operator, for a name that is too long, and for a path
    that leaves its volume.
    """
    workers = job.spec.workers
    name = worker_pod_name(job, index, rank)
    command = ["python", "-m", "openseer_worker.main", "--job", f"{JOB_FOLDER}/job.json", "--index", str(index)]
    command += ["--http-port", str(HTTP_PORT)]
    spec: dict[str, Any] = {}
    if workers.parallelism.nodes > 1:
        spec = {"hostname": name, "subdomain": workers_name(job)}
        leader = f"{worker_pod_name(job, index, 0)}.{workers_name(job)}.{job.namespace}.svc"
        command += ["--rank", str(rank), "--leader", leader]
    mounts = _mounts(job, settings.pods)
    command += _add_kv_pool(job, mounts) + add_rows(job, uid, mounts)
    start = workers.start_seconds or settings.pods.start_seconds
    container = _container(job, settings, WORKER, image, command, mounts, workers.resources, start, secret)
    pod: dict[str, Any] = {
        "metadata": metadata(job, uid, name, "worker"),
        "spec": {
            **_pod_spec(job, settings, container, mounts),
            **spec,
            "terminationGracePeriodSeconds": workers.grace_period_seconds + EXIT_SECONDS,
        },
    }
    if GPU in workers.resources.limits:
        pod["spec"]["tolerations"].append({"key": GPU, "operator": "Exists", "effect": "NoSchedule"})
    pod["metadata"]["labels"] |= {WORKER_LABEL: str(index), RANK_LABEL: str(rank)}
    pod["metadata"]["annotations"] |= {
        TEMPLATE_ANNOTATION: template_hash(job),
        ATTEMPT_ANNOTATION: str(attempt),
        **{name: value for name, value in stamp_annotations(busy=False).items() if value is not None},
    }
    pod = overlay_template(
        pod,
        workers.template,
        path="spec.workers.template",
        main=WORKER,
        owned_pod_fields=_GRACE_OWNED,
        owned_container_fields=_IMAGE_OWNED,
    )
    if avoid:
        _avoid_nodes(pod, avoid)
    return {"apiVersion": "v1", "kind": "Pod", **inherit(pod, job, settings.pods)}


def driver_pod(
    job: RolloutJob,
    uid: str,
    settings: OperatorSettings,
    image: str,
    *,
    attempt: int,
    secret: str,
    avoid: Sequence[str] = (),
) -> dict[str, Any]:
    """The driver's pod. Autoscalers may evict it, because its successor resumes the job. `secret`: name of the managed
    Redis' Secret; `avoid`: nodes on which the pod must not be placed.

    Raises InputError for a template that overrides fields of the operator, and for a path that leaves its volume.
    """
    mounts = _mounts(job, settings.pods)
    command = ["python", "-m", "openseer_driver.main", "--job", f"{JOB_FOLDER}/job.json"]
    command += ["--output", _add_output(job, mounts), "--http-port", str(HTTP_PORT), *_add_prompts(job, mounts)]
    command += add_rows(job, uid, mounts)
    resources, start = job.spec.driver.resources, settings.pods.start_seconds
    container = _container(job, settings, DRIVER, image, command, mounts, resources, start, secret)
    if "resources" not in container:
        container["resources"] = _DRIVER_RESOURCES
    pod: dict[str, Any] = {
        "metadata": metadata(job, uid, driver_pod_name(job), "driver"),
        "spec": {
            **_pod_spec(job, settings, container, mounts),
            "terminationGracePeriodSeconds": DRIVER_GRACE_SECONDS + EXIT_SECONDS,
        },
    }
    pod["metadata"]["annotations"] |= {ATTEMPT_ANNOTATION: str(attempt), SAFE_TO_EVICT_ANNOTATION: "true"}
    pod = overlay_template(
        pod,
        job.spec.driver.template,
        path="spec.driver.template",
        main=DRIVER,
        owned_container_fields=_IMAGE_OWNED,
    )
    if avoid:
        _avoid_nodes(pod, avoid)
    return {"apiVersion": "v1", "kind": "Pod", **inherit(pod, job, settings.pods)}


def _pod_spec(job: RolloutJob, settings: OperatorSettings, container: dict[str, Any], mounts: Mounts) -> dict[str, Any]:
    base = base_pod_spec(job, settings.pods)
    return {**base, "restartPolicy": "Never", "containers": [container], "volumes": mounts.volumes}


def _container(
    job: RolloutJob,
    settings: OperatorSettings,
    name: str,
    image: str,
    command: list[str],
    mounts: Mounts,
    resources: Resources,
    start_seconds: int,
    secret: str,
) -> dict[str, Any]:
    """The container of a worker or driver. `start_seconds`: timeout of its start, in seconds; the load of a large model
    may take many minutes."""
    probes = settings.pods.probes
    timeout = probes.timeout_seconds
    pull_policy = job.spec.image_pull_policy or ("" if job.spec.image else settings.pull_policy)
    requirements = resource_requirements(resources)
    return {
        "name": name,
        "image": image,
        **({"imagePullPolicy": pull_policy} if pull_policy else {}),
        "command": command,
        "env": _environment(job, settings.pods, secret, settings.pods.driver_env if name == DRIVER else ()),
        "ports": [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}],
        "startupProbe": probe("/readyz", 1, start_seconds, timeout),
        "readinessProbe": probe("/readyz", probes.readiness_period_seconds, 1, timeout),
        "livenessProbe": probe("/healthz", probes.liveness_period_seconds, probes.liveness_failures, timeout),
        **({"resources": requirements} if requirements else {}),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts.mounts,
    }


def _environment(
    job: RolloutJob, settings: JobPodSettings, secret: str, more: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The environment variables: the admin's, `more` (the admin's for this role), and openseer's, in rising precedence.
    A template may replace all but OPENSEER_…."""
    model = job.spec.model
    plain = {
        "OPENSEER_TERMINATION_LOG": "/dev/termination-log",
        "HOME": "/tmp",
        # Libraries require a user name; the image's user has none.
        "USER": "openseer",
        "HF_HOME": f"{_CACHE}/huggingface",
        "VLLM_CACHE_ROOT": f"{_CACHE}/vllm",
        "TRITON_CACHE_DIR": f"{_CACHE}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{_CACHE}/inductor",
    }
    if settings.ca_bundle.config_map:
        bundle = f"{_CERTIFICATES}/{settings.ca_bundle.key}"
        # In this order: for OpenSSL (and so Python's ssl), for requests, for curl.
        plain |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), bundle)
    if model.offline:
        plain |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    variables: list[dict[str, Any]] = [
        store_variable(job, secret),
        {"name": "OPENSEER_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "OPENSEER_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        *({"name": name, "value": value} for name, value in plain.items()),
        *log_variables(settings),
    ]
    if model.hub_token_secret is not None:
        variables.append({"name": "HF_TOKEN", "valueFrom": secret_variable(model.hub_token_secret)})
    chosen = {entry["name"]: entry for entry in (*settings.env, *more, *variables)}
    return list(chosen.values())


def _mounts(job: RolloutJob, settings: JobPodSettings) -> Mounts:
    """The common mounts of workers and driver."""
    mounts = Mounts()
    mounts.add("job", JOB_FOLDER, {"configMap": {"name": config_name(job)}}, read_only=True)
    mounts.add("tmp", "/tmp", {"emptyDir": {}})
    mounts.add("shm", "/dev/shm", {"emptyDir": {"medium": "Memory"}})
    bundle = settings.ca_bundle
    if bundle.config_map:
        items = [{"key": bundle.key, "path": bundle.key}]
        mounts.add("ca", _CERTIFICATES, {"configMap": {"name": bundle.config_map, "items": items}}, read_only=True)
    cache = job.spec.model.cache
    if cache is not None:
        mounts.add("cache", _CACHE, {"persistentVolumeClaim": {"claimName": cache.pvc.claim_name}})
    else:
        mounts.add("cache", _CACHE, {"emptyDir": {}})
    volume = job.spec.model.volume
    if volume is not None and volume.pvc is not None:
        source = {"persistentVolumeClaim": {"claimName": volume.pvc.claim_name, "readOnly": True}}
        mounts.add("models", _MODELS, source, read_only=True)
    elif volume is not None and volume.image is not None:
        source = {"image": volume.image.model_dump(mode="json", by_alias=True, exclude_none=True)}
        mounts.add("models", _MODELS, source, read_only=True)
    return mounts


def _add_output(job: RolloutJob, mounts: Mounts) -> str:
    """Mounts the volume of the results; returns the job's folder on it, as a path in the pod."""
    output = job.spec.output
    claim = output.pvc.claim_name if output.pvc is not None else output_name(job)
    mounts.add("output", _OUTPUT, {"persistentVolumeClaim": {"claimName": claim}})
    if output.pvc is not None:
        return inside(_OUTPUT, output.pvc.path, "spec.output.pvc.path")
    return inside(_OUTPUT, output.path or job.name, "spec.output.path")


def _add_kv_pool(job: RolloutJob, mounts: Mounts) -> list[str]:
    """Mounts the volume of the KV pool, if it has one. Returns the option with the pool's address or folder; empty
    without a pool."""
    pool = job.spec.kv_pool
    if has_pool_pod(job):
        return ["--kv-pool", kv_pool_address(job)]
    if not pool.is_on or pool.pvc is None:
        return []
    mounts.add("kv-pool", _KV_POOL, {"persistentVolumeClaim": {"claimName": pool.pvc.claim_name}})
    return ["--kv-pool", inside(_KV_POOL, pool.pvc.path, "spec.kvPool.pvc.path")]


def _add_prompts(job: RolloutJob, mounts: Mounts) -> list[str]:
    """Mounts the prompts. Returns the option with their file; empty for prompts in the image or at a URL."""
    prompts = job.spec.prompts
    if prompts is not None and prompts.config_map is not None:
        source = prompts.config_map
        items = [{"key": source.key, "path": source.key}]
        mounts.add("prompts", _PROMPTS, {"configMap": {"name": source.name, "items": items}}, read_only=True)
        return ["--prompts", f"{_PROMPTS}/{source.key}"]
    if prompts is not None and prompts.pvc is not None:
        # Only the mount is read-only: the same volume may also hold the results.
        claim = {"persistentVolumeClaim": {"claimName": prompts.pvc.claim_name}}
        mounts.add("prompts", _PROMPTS, claim, read_only=True)
        return ["--prompts", inside(_PROMPTS, prompts.pvc.path, "spec.prompts.pvc.path")]
    return []


def _avoid_nodes(pod: dict[str, Any], nodes: Sequence[str]) -> None:
    """Excludes `nodes` in the pod's node affinity, in each of its terms, because the terms are alternatives.

    The rules use the nodes' names, because the label kubernetes.io/hostname differs from the name on some clouds. A
    rule about a field takes only one value.
    """
    spec = pod["spec"]
    rules = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in sorted(set(nodes))]
    pod["metadata"]["annotations"][AVOID_ANNOTATION] = ",".join(sorted(set(nodes)))
    affinity = dict(spec.get("affinity") or {})
    node_affinity = dict(affinity.get("nodeAffinity") or {})
    required = dict(node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {})
    terms: list[dict[str, Any]] = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [
        {**term, "matchFields": [*(term.get("matchFields") or []), *rules]} for term in terms
    ]
    node_affinity["requiredDuringSchedulingIgnoredDuringExecution"] = required
    spec["affinity"] = {**affinity, "nodeAffinity": node_affinity}

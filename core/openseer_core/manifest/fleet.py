"""The parts of the manifest about the rollout and its resources: policy, workers, driver, store, pool, output."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from openseer_core.manifest.base import (
    HostPattern,
    KeyRef,
    ManifestModel,
    NodeCount,
    NonNegative,
    ObjectName,
    Positive,
    Quantity,
    Text,
    VolumeClaimPath,
    WorkerCount,
    allowed,
)

PoolBackend = Literal["none", "shared-directory", "mooncake"]
PolicyName = Literal["context-aware", "seer", "fifo", "longest-first-oracle", "round-robin", "least-inflight"]
ROUND_ROBIN: PolicyName = "round-robin"
LEAST_INFLIGHT: PolicyName = "least-inflight"
GANG_PORT = 29500
"""Port, on a gang's leader, for the rendezvous of its torch processes; openseer's own connection uses the next port."""
BINDING_POLICIES: frozenset[PolicyName] = frozenset({ROUND_ROBIN, LEAST_INFLIGHT})
"""Policies that assign each request to one worker at submission, until the end of the batch."""
Fsync = Literal["everysec", "always"]
Medium = Literal["volume", "ephemeral"]
# A complete PodTemplateSpec. Kubernetes checks its fields when pods are created from it.
PodTemplate = dict[str, JsonValue]


class RolloutSpec(ManifestModel):
    """The division and the order of requests."""

    policy: PolicyName = Field(
        default="context-aware",
        description="Order of the requests. context-aware: longest possible remaining length first, estimated from the "
        "group's other responses. seer: by the longest finished response of the group, as in the Seer paper. "
        "fifo: in order of "
        "submission. longest-first-oracle: by the lengths in the prompt lines (mode batch only). round-robin: whole "
        "groups to workers in turn. least-inflight: each request to the worker with the fewest.",
    )
    probe: bool = Field(
        default=True,
        description="Runs one request of each group first, to learn the group's length; read only with policies "
        "context-aware and seer.",
    )
    quantum_tokens: int = Field(
        default=1024,
        ge=16,
        le=65536,
        description="Tokens after which a worker decides whether a request continues in place or is given back.",
    )
    lease_seconds: float = Field(
        default=10, ge=2, le=600, description="Time without a call of its worker after which a request goes to another."
    )
    checkpoint_seconds: float = Field(
        default=0.25,
        ge=0.05,
        le=5,
        description="Shortest interval at which a worker writes its new tokens to the store; less than a third of "
        "leaseSeconds. Where the store is slow or the fleet large it grows to 2 s, at most a third of leaseSeconds.",
    )
    ageing_tokens_per_second: float = Field(
        default=1,
        ge=0,
        description="Tokens of expected length by which one second of waiting improves a request's place; 0: waiting "
        "does not count.",
    )


class Parallelism(ManifestModel):
    """The division of one engine over GPUs."""

    tensor: Positive = Field(default=1, description="GPUs that share each layer (tensor parallelism).")
    pipeline: Positive = Field(default=1, description="Stages that the layers are cut into (pipeline parallelism).")
    nodes: NodeCount = Field(
        default=1,
        description="Nodes that one worker spans, a gang of as many pods; tensor times pipeline is a multiple of it. "
        "Read only in Kubernetes.",
    )

    @property
    def gpus(self) -> int:
        """GPUs of one engine, on all of its nodes."""
        return self.tensor * self.pipeline


class ResourceClaim(ManifestModel):
    """A claim of the pod that the container uses."""

    name: Text = Field(description="Name of an entry of the pod's resourceClaims.")
    request: Text | None = Field(default=None, description="Request within the claim; unset: the whole claim.")


class Resources(ManifestModel):
    """Compute resources of a container."""

    limits: dict[str, Quantity] = Field(default_factory=dict, description="Limits of the container, by resource name.")
    requests: dict[str, Quantity] = Field(
        default_factory=dict, description="Resources reserved for the container, by resource name."
    )
    claims: tuple[ResourceClaim, ...] = Field(
        default=(), strict=False, description="Claims of the pod that the container uses."
    )


class Autoscale(ManifestModel):
    """The choice of the number of workers from the backlog."""

    target_seconds: Positive | None = Field(
        default=None,
        description="Time in which the backlog should be done; unset: four fifths of the time left until "
        "activeDeadlineSeconds, or 600 without it.",
    )
    scale_down_seconds: NonNegative = Field(
        default=300, description="Time for which fewer workers must suffice before any is stopped."
    )
    idle_seconds: NonNegative = Field(
        default=300,
        description="Time without an unfinished request after which all workers above min are stopped; the next "
        "request starts them again.",
    )


class Workers(ManifestModel):
    """The fleet."""

    replicas: WorkerCount = Field(
        default=1,
        description="Workers wanted; within min and max where these are set. Fixed with policies round-robin and "
        "least-inflight, and with autoscale, where the job begins with it.",
    )
    min: WorkerCount | None = Field(default=None, description="Lower limit of scaling.")
    max: WorkerCount | None = Field(default=None, description="Upper limit of scaling.")
    autoscale: Autoscale | None = Field(
        default=None,
        description="The operator chooses the number of workers between min (unset: 0) and max, by the backlog, the "
        "workers' speed and their start time; unset: replicas. Needs max. Read only in Kubernetes.",
    )
    parallelism: Parallelism = Field(
        default_factory=Parallelism, description="The division of one worker over GPUs and nodes."
    )
    grace_period_seconds: NonNegative = Field(
        default=60, description="Time that a stopped worker has to give back its requests."
    )
    start_seconds: Positive | None = Field(
        default=None,
        description="Limit of a worker's start, the loading of its model included, before it is started again; unset: "
        "the operator's, an hour unless its admin chose another. A change applies to pods created later. Read "
        "only in Kubernetes.",
    )
    max_inflight: Positive | None = Field(
        default=None, description="Limit of concurrent responses in one worker; unset: the engine's max_num_seqs."
    )
    tail_release: bool = Field(
        default=True,
        description="Stops workers that a batch no longer needs, once fewer can run its rest, so that their nodes "
        "can be removed; read only in Kubernetes.",
    )
    max_unavailable: Positive | None = Field(
        default=None,
        description="Limit of workers that are down at the same time while workers are replaced or nodes are drained; "
        "unset: 1, from 8 workers on a quarter of them. Read only in Kubernetes.",
    )
    resources: Resources = Field(
        default_factory=Resources,
        description="Resources of a worker's container, in a gang of each of its pods; read only in Kubernetes.",
    )
    template: PodTemplate = Field(
        default_factory=dict,
        description="A PodTemplateSpec that worker pods are built on: node selection, tolerations, volumes, further "
        "containers; a container named worker is merged with openseer's own. openseer itself sets restartPolicy, "
        "hostname, subdomain and nodeName of a pod and command, args, ports and probes of that container; they are "
        "refused here. Read only in Kubernetes.",
    )


class DriverSpec(ManifestModel):
    """The pod that submits a batch job's prompts and writes its results."""

    resources: Resources = Field(
        default_factory=Resources, description="Resources of the driver's container; read only in Kubernetes."
    )
    template: PodTemplate = Field(
        default_factory=dict,
        description="A PodTemplateSpec that the driver pod is built on, as workers.template is for workers; the "
        "container is named driver. Read only in Kubernetes.",
    )


class Persistence(ManifestModel):
    """The volume of the Redis that openseer runs."""

    medium: Medium = Field(
        default="volume",
        description="volume: a persistent volume. ephemeral: memory and node disk that are deleted with the pod, for "
        "clusters without a StorageClass; a lost Redis pod then loses its unwritten data, and the job cannot be "
        "suspended.",
    )
    storage_class: ObjectName | None = Field(
        default=None, description="StorageClass of the volume; unset: the cluster's default."
    )
    size: Quantity = Field(
        default="4Gi",
        description="Size of the volume. It may grow while the job exists, if its StorageClass allows expansion.",
    )


class WeightTransfer(ManifestModel):
    """Weights that a trainer sends from its own memory; one worker receives them for all."""

    backend: Literal["nccl", "gloo"] = Field(
        default="nccl",
        description="Protocol between sender and worker: nccl, vLLM's own between GPUs; gloo, the same between CPUs.",
    )
    folder: Annotated[str, StringConstraints(pattern=r"^/", max_length=1024)] = Field(
        description="A folder that all workers see under this path, as on a volume that their template mounts; "
        "received weights are stored there in files. It needs room for three versions: the arriving, the present and "
        "the previous one.",
        json_schema_extra=allowed("an absolute path, at most 1024 characters"),
    )


class WeightsSpec(ManifestModel):
    """The ways by which new weights reach the fleet."""

    transfer: WeightTransfer | None = Field(
        default=None,
        description="Takes weights from a trainer that sends them through vLLM's weight transfer; unset: refused.",
    )

    allowed_hosts: tuple[HostPattern, ...] = Field(
        default=(),
        max_length=64,
        strict=False,
        description="Hosts that the URL of new weights may name, also after a redirect: names, or *. and a suffix, "
        "at any port or, as HOST:PORT, at that one. Unset: any host, and a redirect leads to the same one.",
    )


class StoreSpec(ManifestModel):
    """The Redis that stores queue and tokens while the job runs."""

    url: Annotated[str, StringConstraints(pattern=r"^(redis|rediss|unix)://.+$")] | None = Field(
        default=None,
        description="A Redis of your own; excludes secretRef. With neither, openseer runs one.",
        json_schema_extra=allowed("a URL that begins with redis://, rediss:// or unix://"),
    )
    secret_ref: KeyRef | None = Field(
        default=None, description="A key of a Secret that holds such a URL; excludes url; read only in Kubernetes."
    )
    persistence: Persistence | None = Field(
        default=None,
        description="Volume of the Redis that openseer runs; excludes url and secretRef; read only in Kubernetes.",
    )
    fsync: Fsync = Field(
        default="everysec",
        description="How often the Redis that openseer runs writes its log to disk. everysec: a lost node loses about "
        "one second of writes (up to three on a slow disk), which their writers repeat; while the disk is full all "
        "writes wait. always: no acknowledged write is lost; costs about a third of the queue's rate, and on a full "
        "disk Redis exits.",
    )
    resources: Resources = Field(
        default_factory=Resources,
        description="Resources of the container of the Redis that openseer runs. Redis may use three quarters of "
        "limits.memory; without it there is no limit. A change while the job runs applies after the pod of Redis was "
        "deleted. Read only in Kubernetes.",
    )
    template: PodTemplate = Field(
        default_factory=dict,
        description="A PodTemplateSpec that the pod of the Redis that openseer runs is built on, as workers.template "
        "is for workers; the container is named redis. Read only in Kubernetes.",
    )


class KvPool(ManifestModel):
    """The pool through which workers share KV blocks."""

    backend: PoolBackend = Field(
        default="none",
        description="none: a worker that continues another's response computes its context again. shared-directory: "
        "workers store each full KV block as a file and fetch blocks that others have computed. mooncake: the same in "
        "the memory of Mooncake's store, which openseer runs. If the pool is slow, full or lost, contexts are "
        "computed again. Models whose layers all have full attention, engine vllm.",
    )
    path: Text | None = Field(
        default=None,
        description="With shared-directory: a folder that all workers see, in memory or on a fast disk. Excludes pvc.",
    )
    pvc: VolumeClaimPath | None = Field(
        default=None,
        description="With shared-directory: a folder on a persistent volume that all workers mount (ReadWriteMany). "
        "Excludes path; read only in Kubernetes.",
    )
    max_gigabytes: int = Field(
        default=64,
        ge=1,
        le=1_048_576,
        description="Limit of this job's blocks in GiB; beyond it groups are removed, least recently used first. With "
        "mooncake it is memory.",
    )
    template: PodTemplate = Field(
        default_factory=dict,
        description="With mooncake: a PodTemplateSpec that the pod of the pool is built on, as workers.template is for "
        "workers; the container is named kv-pool, and has memory for maxGigabytes. Read only in Kubernetes.",
    )

    @property
    def is_on(self) -> bool:
        """Whether there is a pool."""
        return self.backend != "none"


class RouteCapture(ManifestModel):
    """The place of a job's routed experts until its results are delivered."""

    path: Text | None = Field(
        default=None,
        description="A folder in memory or on a fast disk; unset: in the run's own folder. Excludes pvc; in Kubernetes "
        "refused.",
    )
    pvc: VolumeClaimPath | None = Field(
        default=None,
        description="A folder on a persistent volume that workers mount, and the driver or in mode serve a pod of its "
        "own (ReadWriteMany); needed in Kubernetes. Excludes path.",
    )


class Routing(ManifestModel):
    """The routing data of a mixture-of-experts model in results."""

    capture: RouteCapture | None = Field(
        default=None,
        description="Results contain, for each token of prompt and response, the experts that processed it in each "
        "layer; unset: they do not. Models with experts, engine vllm, pipeline 1, without minP and logits processors.",
    )


class Output(ManifestModel):
    """The place of the results."""

    path: Text | None = Field(
        default=None,
        description="Folder for the results, relative to the working directory; unset: runs/ and the job's name.",
    )
    pvc: VolumeClaimPath | None = Field(default=None, description="A folder on a persistent volume; excludes path.")
    size: Quantity = Field(
        default="1Gi",
        description="Size of the volume for results that openseer makes when pvc is unset; read only in Kubernetes.",
    )
    storage_class: ObjectName | None = Field(
        default=None,
        description="StorageClass of that volume; unset: the cluster's default. Excludes pvc; read only in Kubernetes.",
    )

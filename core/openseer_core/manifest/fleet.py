"""The parts of the manifest that say how and where: policy, workers, driver, store, output."""

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
"""Where torch's processes of a gang meet, on the leader; the gang's own link takes the port after it."""
BINDING_POLICIES: frozenset[PolicyName] = frozenset({ROUND_ROBIN, LEAST_INFLIGHT})
"""Policies that bind requests to workers at submission: each worker keeps what it claimed, to the end of the batch."""
Fsync = Literal["everysec", "always"]
Medium = Literal["volume", "ephemeral"]
# A PodTemplateSpec in all its freedom; its fields are checked when pods are made from it.
PodTemplate = dict[str, JsonValue]


class RolloutSpec(ManifestModel):
    """How requests are divided and ordered."""

    policy: PolicyName = Field(
        default="context-aware",
        description="Order of the requests. context-aware: by how much of a response may be left, as far as its group "
        "tells. seer: by the longest finished response of the group, as the Seer paper has it. fifo: as they came. "
        "longest-first-oracle: by the lengths that the prompt lines state (mode batch only). round-robin: groups dealt "
        "to workers in turn. least-inflight: each request to the worker with the fewest.",
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
        description="Tokens after which it is decided whether a request goes on in place or is given back.",
    )
    lease_seconds: float = Field(
        default=10, ge=2, le=600, description="Time without news after which a worker's requests go to others."
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
        description="Tokens of expected length that each second of waiting is worth in the order; 0: waiting does "
        "not count.",
    )


class Parallelism(ManifestModel):
    """How one engine instance is laid over GPUs."""

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

    limits: dict[str, Quantity] = Field(
        default_factory=dict, description="The most that the container may use, by resource name."
    )
    requests: dict[str, Quantity] = Field(
        default_factory=dict, description="What is kept free for the container, by resource name."
    )
    claims: tuple[ResourceClaim, ...] = Field(
        default=(), strict=False, description="Claims of the pod that the container uses."
    )


class Autoscale(ManifestModel):
    """How the number of workers follows from what waits."""

    target_seconds: Positive | None = Field(
        default=None,
        description="Time in which what waits should be done; unset: what is left of activeDeadlineSeconds, without "
        "that 600.",
    )
    scale_down_seconds: NonNegative = Field(
        default=300, description="Time for which fewer workers must be enough before any is stopped."
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
    min: WorkerCount | None = Field(default=None, description="Fewest workers that scaling may ask for.")
    max: WorkerCount | None = Field(default=None, description="Most workers that scaling may ask for.")
    autoscale: Autoscale | None = Field(
        default=None,
        description="The operator chooses the number of workers between min (unset: 0) and max, by what waits, how "
        "fast workers are and how long they take to start; unset: replicas. Needs max. Read only in Kubernetes.",
    )
    parallelism: Parallelism = Field(
        default_factory=Parallelism, description="How one worker is laid over GPUs and nodes."
    )
    grace_period_seconds: NonNegative = Field(
        default=60, description="Time a worker has to hand back its requests when it is stopped."
    )
    start_seconds: Positive | None = Field(
        default=None,
        description="Longest start of a worker, the loading of its model included, before it is started anew; unset: "
        "the operator's, an hour unless its admin chose another. A change holds for pods that are made later. Read "
        "only in Kubernetes.",
    )
    max_inflight: Positive | None = Field(
        default=None, description="Most responses in flight in one worker; unset: the engine's max_num_seqs."
    )
    tail_release: bool = Field(
        default=True,
        description="Stops workers that a batch no longer needs, once what is left runs on fewer, so that their nodes "
        "can go; read only in Kubernetes.",
    )
    max_unavailable: Positive | None = Field(
        default=None,
        description="Most workers that are down at once while workers are replaced or nodes are drained; unset: 1, "
        "from 8 workers on a quarter of them. Read only in Kubernetes.",
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
        description="volume: a persistent volume. ephemeral: memory and node disk that go with the pod, for clusters "
        "without a StorageClass; a lost Redis pod then costs what was not yet written out, and the job cannot be "
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
    """Weights that a trainer sends from its own memory: one worker receives them, for all."""

    backend: Literal["nccl", "gloo"] = Field(
        default="nccl",
        description="What sender and worker speak: nccl, vLLM's own between GPUs; gloo, the same protocol between "
        "CPUs.",
    )
    folder: Annotated[str, StringConstraints(pattern=r"^/", max_length=1024)] = Field(
        description="A folder that all workers see under this path, as on a volume that their template mounts: what is "
        "received is kept there, in files. It needs room for three versions: the one that arrives, the present one and "
        "the one before.",
        json_schema_extra=allowed("an absolute path, at most 1024 characters"),
    )


class WeightsSpec(ManifestModel):
    """How new weights reach the fleet."""

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
    """Where the queue and the tokens live while the job runs."""

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
        description="How often the Redis that openseer runs writes its log to disk. everysec: a lost node costs at "
        "most a second, which workers and drivers make good; while the disk is full everything waits. always: nothing "
        "that was written is lost; costs about a third of the queue's rate, and on a full disk Redis ends.",
    )
    resources: Resources = Field(
        default_factory=Resources,
        description="Resources of the container of the Redis that openseer runs. Redis may use three quarters of "
        "limits.memory; without it there is no limit. What changes while the job runs holds once the pod of Redis was "
        "deleted. Read only in Kubernetes.",
    )
    template: PodTemplate = Field(
        default_factory=dict,
        description="A PodTemplateSpec that the pod of the Redis that openseer runs is built on, as workers.template "
        "is for workers; the container is named redis. Read only in Kubernetes.",
    )


class KvPool(ManifestModel):
    """Where workers keep KV blocks for one another."""

    backend: PoolBackend = Field(
        default="none",
        description="none: a worker that goes on with another's response computes its context again. shared-directory: "
        "workers keep each full KV block as a file and fetch what others have computed. mooncake: they do so in the "
        "memory of Mooncake's store, which openseer runs. A pool that is slow, full or gone costs that computation and "
        "nothing else. Models whose layers all have full attention, engine vllm.",
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
        description="Most GiB of this job's blocks; beyond it groups are removed, those unused for longest first. With "
        "mooncake they are of memory.",
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
    """Where the routed experts of a job lie until its results are given."""

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
    """What is told of a mixture-of-experts model's routing."""

    capture: RouteCapture | None = Field(
        default=None,
        description="Results carry, for each token of prompt and response, the experts that it went through in each "
        "layer; unset: they do not. Models with experts, engine vllm, pipeline 1, without minP and logits processors.",
    )


class Output(ManifestModel):
    """Where results go."""

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

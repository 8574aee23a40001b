"""RolloutJob: the manifest as typed classes, with the same contract as crds/rolloutjobs.yaml."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from openseer_core.manifest.base import (
    DNS_LABEL_PATTERN,
    KeyRef,
    LocalObjectReference,
    ManifestModel,
    Positive,
    PullPolicy,
    Text,
    VolumeClaim,
    VolumeClaimPath,
    allowed,
)
from openseer_core.manifest.failures import ExitCodes, FailurePolicy, FailureRule, PodCondition
from openseer_core.manifest.fleet import (
    Autoscale,
    DriverSpec,
    Fsync,
    KvPool,
    Output,
    Parallelism,
    Persistence,
    PolicyName,
    ResourceClaim,
    Resources,
    RolloutSpec,
    Routing,
    StoreSpec,
    WeightsSpec,
    Workers,
)
from openseer_core.manifest.generation import (
    Dtype,
    EngineName,
    EngineProcess,
    ImageVolume,
    JobMode,
    Logprobs,
    Lora,
    Model,
    ModelCache,
    ModelVolume,
    PromptFields,
    Prompts,
    Sampling,
    Scripted,
    ScriptedPool,
)
from openseer_core.manifest.rules import broken_rules
from openseer_core.manifest.speculation import Speculation

__all__ = [
    "API_VERSION",
    "KIND",
    "Autoscale",
    "DriverSpec",
    "Dtype",
    "EngineName",
    "EngineProcess",
    "ExitCodes",
    "FailurePolicy",
    "FailureRule",
    "Fsync",
    "ImageVolume",
    "JobMode",
    "KeyRef",
    "KvPool",
    "LocalObjectReference",
    "Logprobs",
    "Lora",
    "Metadata",
    "Model",
    "ModelCache",
    "ModelVolume",
    "Output",
    "Parallelism",
    "Persistence",
    "PodCondition",
    "PolicyName",
    "PromptFields",
    "Prompts",
    "PullPolicy",
    "ResourceClaim",
    "Resources",
    "RolloutJob",
    "RolloutSpec",
    "Routing",
    "Sampling",
    "Scripted",
    "ScriptedPool",
    "Spec",
    "Speculation",
    "StoreSpec",
    "VolumeClaim",
    "VolumeClaimPath",
    "WeightsSpec",
    "Workers",
]

API_VERSION = "openseer.dev/v1alpha1"
KIND = "RolloutJob"


class Metadata(ManifestModel):
    """The fields of an object's metadata that openseer reads; others belong to Kubernetes."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, StringConstraints(pattern=DNS_LABEL_PATTERN, max_length=50)] = Field(
        description="Name of the job.",
        json_schema_extra=allowed("at most 50 lower-case letters, digits and -, with a letter or digit at both ends"),
    )
    namespace: Annotated[str, StringConstraints(pattern=DNS_LABEL_PATTERN, max_length=63)] | None = Field(
        default=None,
        description="Namespace of the job; read only in Kubernetes.",
        json_schema_extra=allowed("at most 63 lower-case letters, digits and -, with a letter or digit at both ends"),
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels of the job.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations of the job.")


class Spec(ManifestModel):
    """The specification of a job."""

    mode: JobMode = Field(
        default="batch",
        description="batch: reads its prompts from a source, generates groupSize responses to each and ends. "
        "serve: takes groups from a trainer through the API until it is deleted.",
    )
    model: Model = Field(description="The model and the engine that runs it.")
    image: Text | None = Field(
        default=None,
        description="Image of workers and driver; unset: the worker image of the operator that first reconciles the "
        "job, kept when the operator is upgraded. Read only in Kubernetes.",
    )
    image_pull_policy: PullPolicy | None = Field(
        default=None,
        description="When the image is pulled; unset: Always for the tag latest, else IfNotPresent. Read only in "
        "Kubernetes.",
    )
    image_pull_secrets: tuple[LocalObjectReference, ...] = Field(
        default=(),
        max_length=16,
        strict=False,
        description="Secrets with which the job's images are pulled; read only in Kubernetes.",
    )
    prompts: Prompts | None = Field(
        default=None,
        description="Source of the prompts, exactly one of path, pvc, configMap and url; mode batch only, and "
        "needed there.",
    )
    group_size: int = Field(
        default=8,
        ge=1,
        le=1024,
        description="Responses generated to each prompt; in mode serve the default of groups without their own.",
    )
    sampling: Sampling = Field(
        default_factory=Sampling,
        description="Sampling parameters; in mode serve the defaults of groups without their own.",
    )
    rollout: RolloutSpec = Field(default_factory=RolloutSpec, description="The division and the order of requests.")
    speculation: Speculation = Field(
        default_factory=Speculation,
        description="Drafting of tokens ahead of the engine, which verifies them.",
    )
    kv_pool: KvPool = Field(
        default_factory=KvPool,
        description="The KV pool, through which a request keeps its KV cache when it moves to another worker.",
    )
    routing: Routing = Field(
        default_factory=Routing, description="Routing data of a mixture-of-experts model in results."
    )
    workers: Workers = Field(default_factory=Workers, description="The fleet of workers.")
    driver: DriverSpec = Field(
        default_factory=DriverSpec,
        description="The pod that submits the prompts and writes the results; mode batch only.",
    )
    store: StoreSpec = Field(
        default_factory=StoreSpec, description="The Redis that stores queue and tokens while the job runs."
    )
    weights: WeightsSpec = Field(
        default_factory=WeightsSpec, description="Transfer of new weights to the fleet; read only in mode serve."
    )
    output: Output = Field(
        default_factory=Output,
        description="The folder or volume of the results, at most one of path and pvc; read only in mode batch.",
    )
    suspend: bool = Field(
        default=False, description="Gives back all running requests and stops the workers; false continues from there."
    )
    active_deadline_seconds: Positive | None = Field(
        default=None, description="Time after which an unfinished job fails; unset: no limit."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        default=None,
        description="Time after which a finished job is deleted; unset: it stays. Read only in Kubernetes.",
    )
    failure_policy: FailurePolicy = Field(default_factory=FailurePolicy, description="Limits and kinds of failures.")

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        broken = broken_rules(self.model_dump(by_alias=True, exclude_none=True))
        if broken:
            raise PydanticCustomError("broken_rule", "{problems}", {"problems": "; ".join(broken)})
        return self

    @property
    def needs_lengths(self) -> bool:
        """Whether every prompt line must state the lengths of its responses."""
        return self.sampling.force_lengths or self.rollout.policy == "longest-first-oracle"


class RolloutJob(ManifestModel):
    """One rollout job."""

    api_version: Literal["openseer.dev/v1alpha1"] = Field(description="Version of this contract.")
    kind: Literal["RolloutJob"] = Field(description="Kind of the object.")
    metadata: Metadata = Field(description="Name and labels of the job.")
    spec: Spec = Field(description="The specification of the job.")
    status: Any = Field(default=None, description="Written by the operator; ignored when read.", exclude=True)

    @property
    def recommended_workers(self) -> int | None:
        """The number of workers that the backlog needs, by the operator's last status; None if there is none."""
        status: Any = self.status
        if not isinstance(status, Mapping):
            return None
        backlog = cast("Mapping[str, Mapping[str, object] | None]", status).get("backlog") or {}
        found = backlog.get("workers")
        return found if isinstance(found, int) else None

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace of the job; "default" if the manifest states none."""
        return self.metadata.namespace or "default"

    @property
    def output_path(self) -> str:
        """The folder for results of a job without an output volume."""
        return self.spec.output.path or f"runs/{self.name}"


def default_spec() -> dict[str, Any]:
    """The default values of a spec, under the manifest's names."""
    parts = {name: part for name, part in Spec.model_fields.items() if not part.is_required()}
    defaults = {part.alias or name: part.get_default(call_default_factory=True) for name, part in parts.items()}
    return {
        name: value.model_dump(by_alias=True, exclude_none=True) if isinstance(value, ManifestModel) else value
        for name, value in defaults.items()
        if value is not None
    }

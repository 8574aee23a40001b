"""The part of the manifest that says whether and how workers draft, and the one place that decides whether they do."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from openseer_core.part import Part

if TYPE_CHECKING:
    from openseer_core.job import Spec

Device = Literal["cpu", "gpu"]
MIN_P_IGNORED = "the engine ignores it when it verifies drafts"


class Speculation(Part):
    """How workers draft tokens ahead of the engine, which verifies them."""

    enabled: bool | None = Field(
        default=None,
        description="Whether workers draft tokens from what the group has generated so far, which the engine then "
        "verifies several at a time; the distribution of the responses stays the same. Unset: where it was measured "
        "to pay, on CPUs and not on GPUs. Never with sampling.minP, which the engine ignores when it verifies drafts.",
    )
    max_tokens: int = Field(
        default=16,
        ge=1,
        le=64,
        description="Most tokens drafted for one request in one step; how many are worth it is decided step by step.",
    )
    earlier_responses: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Responses of earlier batches to the same prompt, the newest ones, that a group drafts from and "
        "that its length is estimated by; 0: none are kept.",
    )
    memory_megabytes: int = Field(
        default=1024,
        ge=16,
        le=65536,
        description="Most memory of a worker for what it drafts from, in MiB; when it is full, groups that no longer "
        "run are dropped first.",
    )


def why_no_drafts(spec: "Spec", device: Device) -> str:
    """Why a worker of this job on such a device does not draft; empty when it does."""
    if spec.speculation.enabled is False:
        return "spec.speculation.enabled is false"
    if spec.model.engine == "scripted":
        return "the scripted engine plays lengths and has nothing to verify"
    if spec.sampling.min_p > 0:
        return f"spec.sampling.minP: {MIN_P_IGNORED}"
    if device == "gpu" and spec.speculation.enabled is None:
        return "spec.speculation.enabled is unset, and drafts were not measured to pay on GPUs"
    return ""

"""The one place that decides whether a job drafts."""

from typing import Literal

from openseer_core.manifest.job import Spec

Device = Literal["cpu", "gpu"]
MIN_P_IGNORED = "the engine ignores it when it verifies drafts"


def speculation_refusal(spec: Spec, device: Device) -> str:
    """Why a worker of this job on such a device does not draft; empty when it does."""
    if spec.speculation.enabled is False:
        return "spec.speculation.enabled is false"
    if spec.model.engine == "scripted":
        return "the scripted engine plays lengths and has nothing to verify"
    if spec.sampling.min_p > 0:
        return f"spec.sampling.minP: {MIN_P_IGNORED}"
    if spec.model.engine_args.get("logits_processors"):
        return "spec.model.engineArgs.logits_processors: the engine has none when it verifies drafts"
    if device == "gpu" and spec.speculation.enabled is None:
        return "spec.speculation.enabled is unset, and drafts were not measured to pay on GPUs"
    return ""

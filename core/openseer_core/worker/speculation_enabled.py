"""The one place that decides whether a job drafts."""

from openseer_core.manifest.job import Spec
from openseer_core.worker import draft_ratios

MIN_P_IGNORED = "the engine ignores it when it verifies drafts"
CPU = "cpu"
"""What stands for the device of an engine on a CPU; a GPU has the name that NVIDIA gives it."""


def job_refusal(spec: Spec) -> str:
    """Why no worker of this job drafts, on whatever device; empty when it depends on the device."""
    if spec.speculation.enabled is False:
        return "spec.speculation.enabled is false"
    if spec.model.engine == "scripted":
        return "the scripted engine plays lengths and has nothing to verify"
    if spec.sampling.min_p > 0:
        return f"spec.sampling.minP: {MIN_P_IGNORED}"
    if spec.model.engine_args.get("logits_processors"):
        return "spec.model.engineArgs.logits_processors: the engine has none when it verifies drafts"
    return ""


def speculation_refusal(spec: Spec, device: str) -> str:
    """Why a worker of this job on such a device does not draft; empty when it does."""
    reason = job_refusal(spec)
    if reason or spec.speculation.enabled:
        return reason
    reason = draft_ratios.refusal(device, _most(spec), draft_ratios.measured())
    return f"spec.speculation.enabled is unset, and {reason}" if reason else ""


def _most(spec: Spec) -> int | None:
    """Requests that may run at once in one engine, as far as the manifest says."""
    given = (spec.workers.max_inflight, spec.model.engine_args.get("max_num_seqs"))
    return min((most for most in given if isinstance(most, int)), default=None)

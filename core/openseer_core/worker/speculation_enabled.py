"""The decision whether a job's workers draft; no other code makes it."""

from openseer_core.manifest.job import Spec
from openseer_core.worker import draft_ratios

MIN_P_IGNORED = "the engine ignores it when it verifies drafts"
CPU = "cpu"
"""Device name of an engine on a CPU; for a GPU it is NVIDIA's name."""


def job_refusal(spec: Spec) -> str:
    """The reason why no worker of this job drafts, on any device; "" if the device decides."""
    if spec.speculation.enabled is False:
        return "spec.speculation.enabled is false"
    if spec.model.engine == "scripted":
        return "the scripted engine generates given lengths and has nothing to verify"
    if spec.sampling.min_p > 0:
        return f"spec.sampling.minP: {MIN_P_IGNORED}"
    if spec.model.engine_args.get("logits_processors"):
        return "spec.model.engineArgs.logits_processors: the engine ignores them when it verifies drafts"
    return ""


def speculation_refusal(spec: Spec, device: str) -> str:
    """The reason why a worker of this job does not draft on a device; "" if it does."""
    reason = job_refusal(spec)
    if reason or spec.speculation.enabled:
        return reason
    reason = draft_ratios.refusal(device, _most(spec), draft_ratios.measured())
    return f"spec.speculation.enabled is unset, and {reason}" if reason else ""


def _most(spec: Spec) -> int | None:
    """The manifest's limit of concurrent requests in one engine; None if it states none."""
    given = (spec.workers.max_inflight, spec.model.engine_args.get("max_num_seqs"))
    return min((most for most in given if isinstance(most, int)), default=None)

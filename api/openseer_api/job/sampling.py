"""Checks a trainer's sampling parameters against the job."""

from openseer_api.job.context import JobContext
from openseer_core.admission import bad_token
from openseer_core.errors import InputError
from openseer_core.manifest.job import Sampling
from openseer_core.worker.speculation_enabled import MIN_P_IGNORED, job_refusal


async def check_sampling(job: JobContext, sampling: Sampling, whose: str = "") -> None:
    """Raises InputError for sampling parameters of a batch or group that the job does not allow.
    `whose`: prefix of the message."""
    if sampling.force_lengths:
        text = "not allowed here; lengths are given by prompt lines of batch jobs"
        raise InputError(f"{whose}sampling.forceLengths: {text}")
    kind = job.job.spec.sampling.logprobs
    if sampling.logprobs not in (kind, "none"):
        raise InputError(f"{whose}sampling.logprobs: found {sampling.logprobs}, allowed in this job: {kind} or none")
    problem = bad_token("sampling.stopTokenIds", sampling.stop_token_ids, await job.limits_of_requests())
    if problem:
        raise InputError(f"{whose}{problem}")
    check_order(sampling, f"{whose}sampling.minTokens", "maxTokens")
    await check_min_p(job, sampling, f"{whose}sampling.minP")


def check_order(sampling: Sampling, field: str, most: str) -> None:
    """Raises InputError if min_tokens exceeds max_tokens. `field`, `most`: the caller's names of these two fields."""
    if sampling.min_tokens > sampling.max_tokens:
        raise InputError(f"{field}: found {sampling.min_tokens}, allowed: at most {most} ({sampling.max_tokens})")


async def check_min_p(job: JobContext, sampling: Sampling, field: str) -> None:
    """Raises InputError for a min_p above 0 in a job that captures routed experts, or that drafts, where the engine
    would ignore it. `field`: the caller's name of min_p."""
    if sampling.min_p > 0 and job.job.spec.routing.capture is not None:
        raise InputError(f"{field}: found {sampling.min_p:g}, allowed in a job with spec.routing.capture: 0")
    if sampling.min_p > 0 and await _drafts(job):
        raise InputError(
            f"{field}: found {sampling.min_p:g}; this job drafts, and {MIN_P_IGNORED}. Leave it out, or use a job that "
            "has spec.speculation.enabled: false"
        )


async def _drafts(job: JobContext) -> bool:
    """Whether the fleet drafts, by the manifest or, if that leaves it open, by the workers' heartbeats."""
    spec = job.job.spec
    if job_refusal(spec):
        return False
    if spec.speculation.enabled is True:
        return True
    return any(worker.heartbeat.metrics.speculation == "on" for worker in (await job.snapshot()).workers)

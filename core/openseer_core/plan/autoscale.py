"""Computes the number of workers that a job's backlog needs: `recommend` for external autoscalers, `autoscaled` for a
job with `workers.autoscale`."""

from dataclasses import replace
from statistics import median

from openseer_core.manifest.job import RolloutJob
from openseer_core.plan.backlog import (
    START_SECONDS,
    Backlog,
    ScalingDecision,
    decide,
    measured,
    recommended,
    target_seconds,
)
from openseer_core.plan.observation import Memory, Observation
from openseer_core.queue.messages import BatchProgress

LEARN_SHARE = 0.9
"""Share of a batch's requests that must have finished before their mean length is used."""
MOST_START_SECONDS = 1800.0
"""Limit of a measured start time, in seconds. A longer one belongs to a worker that was ready earlier and has become
ready again."""
DEADLINE_SHARE = 0.8
"""Share of the time until the deadline that is planned for the backlog; the rest is a reserve for a long tail."""


def recommend(observation: Observation, memory: Memory) -> Backlog:
    """The present backlog, with the number of workers that it needs; the last known one while the store does not
    answer."""
    store, known = observation.store, memory.backlog
    if store is None:
        return known
    unfinished = store.progress.requests - store.progress.closed
    enough_to_do = unfinished > store.inflight
    length = measured(known.length, _learned_length(store.progress))
    backlog = Backlog(
        requests=unfinished,
        tokens=round(unfinished * (length or observation.job.spec.sampling.max_tokens / 2)),
        length=length,
        speed=measured(known.speed, store.worker_speed if enough_to_do else None),
        start_seconds=measured(known.start_seconds, _start_seconds(observation)),
    )
    workers = observation.job.spec.workers
    present = _present(observation.job, memory)
    number = recommended(backlog, present, _target(observation, memory, backlog), workers.replicas)
    return replace(backlog, workers=_bounded(observation.job, number))


def autoscaled(observation: Observation, memory: Memory) -> ScalingDecision:
    """The number of workers of a job with `workers.autoscale`, from `memory.backlog`; the last number while the store
    does not answer."""
    options = observation.job.spec.workers.autoscale
    assert options is not None
    present = _bounded(observation.job, _present(observation.job, memory))
    if observation.store is None:
        return ScalingDecision(present, memory.scaling)
    return decide(
        memory.backlog.workers,
        present,
        memory.scaling,
        observation.now,
        idle=not memory.backlog.requests,
        window=options.scale_down_seconds,
        patience=options.idle_seconds,
    )


def _present(job: RolloutJob, memory: Memory) -> int:
    """The present number of workers: with autoscaling the last wanted number; before the first step, and without
    autoscaling, `workers.replicas`."""
    workers = job.spec.workers
    return workers.replicas if workers.autoscale is None or memory.desired is None else memory.desired


def _bounded(job: RolloutJob, number: int) -> int:
    workers = job.spec.workers
    return max(workers.min or 0, number if workers.max is None else min(number, workers.max))


def _target(observation: Observation, memory: Memory, backlog: Backlog) -> float:
    spec = observation.job.spec
    limit, options = spec.active_deadline_seconds, spec.workers.autoscale
    left = None
    if limit is not None and memory.started_at is not None:
        left = DEADLINE_SHARE * (memory.started_at + limit - observation.now)
    asked = options.target_seconds if options is not None else None
    return target_seconds(asked, left, backlog.start_seconds or START_SECONDS)


def _learned_length(progress: BatchProgress) -> float | None:
    """Mean tokens of a response; None below LEARN_SHARE, because short responses finish first."""
    if not progress.closed or progress.closed < LEARN_SHARE * progress.requests:
        return None
    return progress.tokens / progress.closed


def _start_seconds(observation: Observation) -> float | None:
    """Median start time of the present workers' pods, in seconds; None if no start was measured."""
    took = (pod.start_seconds for pod in observation.pods if pod.index is not None)
    seen = [seconds for seconds in took if seconds is not None and seconds <= MOST_START_SECONDS]
    return median(seen) if seen else None

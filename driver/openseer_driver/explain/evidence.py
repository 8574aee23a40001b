"""Finds evidence of two causes of lost time in a run's trace: a response that ran alone, slots without KV blocks."""

from dataclasses import dataclass
from statistics import fmean

from openseer_core.explain.findings import Account
from openseer_core.manifest.fleet import RolloutSpec
from openseer_core.manifest.generation import Sampling
from openseer_driver.report.trace import Fact, Trace

LARGE_QUANTUM = 0.5
"""A quantum is large from this fraction of the smallest worker's KV tokens."""
LONGER = 1.5
"""A response is a giant from this ratio of its length to the largest length in other groups."""


@dataclass(frozen=True)
class Evidence(Account):
    """The input of the rules: the workers' time from the run's start to the last end of a request, and the trace."""

    trace: Trace

    @property
    def makespan(self) -> float:
        """Seconds from the first request claimed to the last one finished."""
        return self.trace.end


@dataclass(frozen=True, slots=True)
class Giant:
    """A giant response that ended last. `times`: ratio of its length to the largest length in other groups; `alone`:
    seconds that it ran after all other responses had ended."""

    fact: Fact
    times: float
    alone: float


def giant(trace: Trace) -> Giant | None:
    """The response that ended last, if it is a giant; otherwise None."""
    if len(trace.facts) < 2:
        return None
    *_, other, last = trace.facts
    longest = max((fact.length for fact in trace.facts if fact.group_key != last.group_key), default=0)
    if not longest or last.length < LONGER * longest:
        return None
    alone = trace.clock.at(last.finished_at) - trace.clock.at(other.finished_at)
    return Giant(last, last.length / longest, alone)


@dataclass(frozen=True, slots=True)
class EmptySlots:
    """Slots left empty because KV blocks were missing. `share`: fraction of the workers' samples in which requests
    waited and a slot was free, but not the KV blocks for one more response. `used`, `slots`: means per worker over
    these samples."""

    share: float = 0.0
    used: float = 0.0
    slots: float = 0.0


def empty_slots(trace: Trace) -> EmptySlots:
    """The empty slots in the run's samples. Assumes that one more response needs the mean number of blocks."""
    looks, held = 0, list[tuple[int, int]]()
    for sample in trace.samples:
        if sample.closed >= sample.requests:
            continue
        looks += len(sample.workers)
        held += [
            (worker.inflight, worker.slots)
            for worker in sample.workers.values()
            if sample.waiting and 0 < worker.inflight < worker.slots and _is_full(worker.kv_reserved, worker.inflight)
        ]
    if not held:
        return EmptySlots()
    return EmptySlots(len(held) / looks, fmean(used for used, _ in held), fmean(slots for _, slots in held))


def kv_settings(trace: Trace) -> str:
    """The names of the settings that size the KV cache of the run's engines, for advice."""
    if trace.record.setting("model", "engine") == "scripted":
        return "model.scripted.kvBlocks"
    if any(worker.gpu for sample in trace.samples for worker in sample.workers.values()):
        return "engineArgs.gpu_memory_utilization, kv_cache_dtype, more GPUs a worker"
    return (
        "on a CPU engineArgs.kv_cache_memory_bytes, or VLLM_CPU_KVCACHE_SPACE in GiB in the workers' environment; on a "
        "GPU engineArgs.gpu_memory_utilization"
    )


def large_quantum(trace: Trace) -> str:
    """The advice to lower a quantum that is large for the KV caches; "" if it is not, or if their size is unknown.

    A worker reserves KV blocks for a whole quantum of each response, at most up to the response's limit.
    """
    quantum = int(trace.record.setting("rollout", "quantumTokens") or RolloutSpec().quantum_tokens)
    limit = int(trace.record.setting("sampling", "maxTokens") or Sampling().max_tokens)
    sizes = [worker.kv_tokens for sample in trace.samples for worker in sample.workers.values() if worker.kv_tokens]
    if not sizes or min(quantum, limit) < LARGE_QUANTUM * min(sizes):
        return ""
    return f"lower rollout.quantumTokens ({quantum:,}; a worker's KV cache has {min(sizes):,} tokens)"


def _is_full(reserved: float, inflight: int) -> bool:
    return reserved * (1 + 1 / inflight) > 1

"""What made a run slow: the rules that need all of its trace, beside those of workers' time (core's `explain`)."""

from collections.abc import Callable, Iterator

from openseer_core.explain.findings import Finding, finding, large_parts, slow_workers
from openseer_driver.explain.evidence import Evidence, empty_slots, giant, kv_settings
from openseer_driver.explain.explanation import BestTimes

ALONE = 0.1
"""A giant response is told that ran alone for so much of the makespan."""
EMPTY = 0.2
FULL = 0.75
"""KV caches are told that kept workers below FULL of their slots in EMPTY of their samples while requests waited."""
PREEMPTED = 0.05
"""Or that had so many responses preempted, for each response of the run."""
BETTER = 1.1
"""A policy is told that would have been so many times as fast."""

_Rule = Callable[[Evidence, BestTimes | None], Iterator[Finding]]


def find(evidence: Evidence, best: BestTimes | None) -> list[Finding]:
    """All that stands out, the most worker-seconds first."""
    found = [one for rule in _RULES for one in rule(evidence, best)]
    return sorted(found, key=lambda one: -one.worker_seconds)


def _slow_workers(evidence: Evidence, _: BestTimes | None) -> Iterator[Finding]:
    return slow_workers(evidence)


def _giant(evidence: Evidence, _: BestTimes | None) -> Iterator[Finding]:
    found, makespan = giant(evidence.trace), evidence.makespan
    if found is None or not makespan or found.alone < ALONE * makespan:
        return
    fact, workers = found.fact, len(evidence.by_worker)
    yield finding(
        evidence,
        "giant_request",
        f"{fact.group}[{fact.index}]",
        found.alone / makespan,
        f"response {fact.index} of group {fact.group} has {fact.length:,} tokens, {found.times:.1f} times the longest "
        f"of other groups, and ran alone for {found.alone:,.1f} s, {found.alone / makespan:.0%} of the makespan",
        "lower sampling.maxTokens, or run groups that may be so long in a job of their own",
        found.alone * workers,
    )


def _kv(evidence: Evidence, _: BestTimes | None) -> Iterator[Finding]:
    trace, empty = evidence.trace, empty_slots(evidence.trace)
    preempted = sum(max(0, chunk) for chunk in _preemptions(evidence))
    is_small = empty.share >= EMPTY and empty.used < FULL * empty.slots
    if not is_small and preempted < PREEMPTED * len(trace.facts):
        return
    parts = evidence.sums
    seconds = parts["decode_below_waiting"] * (1 - empty.used / empty.slots) if is_small else parts["recompute"]
    says = (
        f"kv: workers ran {empty.used:.1f} of {empty.slots:.0f} responses at once while others waited, for their KV "
        f"caches had no blocks for more, in {empty.share:.0%} of the samples"
        if is_small
        else f"kv: engines preempted {preempted:,} times, {len(trace.facts):,} responses in all"
    )
    advice = f"give the KV cache more room ({kv_settings(trace)}), or shorten contexts"
    figure = empty.used / empty.slots if is_small else float(preempted)
    yield finding(evidence, "kv", "kv", figure, says, advice, seconds)


def _preemptions(evidence: Evidence) -> Iterator[int]:
    for name in evidence.by_worker:
        before = 0
        for sample in evidence.trace.samples:
            if name in sample.workers:
                now = sample.workers[name].preemptions
                yield now - before if now >= before else now
                before = now


def _policy(evidence: Evidence, best: BestTimes | None) -> Iterator[Finding]:
    own, makespan = evidence.policy, evidence.makespan
    if best is not None and best.policy != own and best.known and best.itself >= BETTER * best.known:
        ratio = best.itself / best.known
        yield finding(
            evidence,
            "policy",
            own,
            ratio,
            f"{best.policy} would have been {ratio:.2f} times as fast as {own} with these lengths, simulated",
            f"set rollout.policy: {best.policy}",
            (1 - 1 / ratio) * makespan * len(evidence.by_worker),
        )


def _parts(evidence: Evidence, best: BestTimes | None) -> Iterator[Finding]:
    """But the tail of a giant, which is told by itself."""
    told = ("tail",) if any(_giant(evidence, None)) else ()
    return large_parts(evidence, least=best.known if best is not None else None, but=told)


_RULES: tuple[_Rule, ...] = (_slow_workers, _giant, _kv, _policy, _parts)

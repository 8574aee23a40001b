"""Finds causes of lost time in a run: rules on its trace, and core's rules on workers' time."""

from collections.abc import Callable, Iterator

from openseer_core.explain.findings import Finding, finding, large_parts, slow_workers
from openseer_driver.explain.evidence import Evidence, empty_slots, giant, kv_settings, large_quantum
from openseer_driver.explain.explanation import BestTimes

ALONE = 0.1
"""A giant response gives a finding if it ran alone for at least this fraction of the makespan."""
EMPTY = 0.2
FULL = 0.75
"""KV caches give a finding if, in at least a fraction EMPTY of the samples, requests waited for KV blocks, and workers
used less than a fraction FULL of their slots in these samples."""
PREEMPTED = 0.05
"""KV caches also give a finding from this mean number of preemptions per response."""
BETTER = 1.1
"""Simulated speed-up from which another policy gives a finding."""

_Rule = Callable[[Evidence, BestTimes | None], Iterator[Finding]]


def find(evidence: Evidence, best: BestTimes | None) -> list[Finding]:
    """All findings, the most worker-seconds first."""
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
        "lower sampling.maxTokens, or run groups with such long responses in a separate job",
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
        f"kv: workers ran {empty.used:.1f} of {empty.slots:.0f} responses at once while requests waited, because "
        f"their KV caches had no free blocks, in {empty.share:.0%} of the samples"
        if is_small
        else f"kv: engines preempted {preempted:,} times, {len(trace.facts):,} responses in all"
    )
    advice = f"enlarge the KV cache ({kv_settings(trace)}), or shorten contexts"
    if is_small and (smaller := large_quantum(trace)):
        advice = f"{smaller}, {advice}"
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
    """Findings on large parts of workers' time. Leaves out the tail if a giant response caused it: the giant has a
    finding of its own."""
    left_out = ("tail",) if any(_giant(evidence, None)) else ()
    return large_parts(evidence, least=best.known if best is not None else None, but=left_out)


_RULES: tuple[_Rule, ...] = (_slow_workers, _giant, _kv, _policy, _parts)

"""What made a run slow, and what to do: one rule for each cause, with its threshold."""

from collections.abc import Callable, Iterator

from openseer_core.manifest.fleet import BINDING_POLICIES
from openseer_driver.explain.evidence import Evidence, empty_slots, giant, named
from openseer_driver.explain.explanation import BestTimes, Cause, Finding, PartName

SLOW = 0.75
"""A worker is slow whose responses grow at less than so much of the others' pace: machines vary by less."""
ALONE = 0.1
"""A giant response is told that ran alone for so much of the makespan."""
EMPTY = 0.2
FULL = 0.75
"""KV caches are told that kept workers below FULL of their slots in EMPTY of their samples while requests waited."""
PREEMPTED = 0.05
"""Or that had so many responses preempted, for each response of the run."""
BETTER = 1.1
"""A policy is told that would have been so many times as fast."""
LEAST_SHARES: dict[PartName, float] = {
    "store": 0.03,
    "lost": 0.03,
    "weights": 0.05,
    "recompute": 0.05,
    "idle": 0.1,
    "boot": 0.2,
    "prompts": 0.2,
    "tail": 0.2,
    "prefill": 0.25,
}
"""A part is told that is so much of all workers' time."""

_Rule = Callable[[Evidence, BestTimes | None], Iterator[Finding]]


def find(evidence: Evidence, best: BestTimes | None) -> list[Finding]:
    """All that stands out, the most worker-seconds first."""
    found = [finding for rule in _RULES for finding in rule(evidence, best)]
    return sorted(found, key=lambda finding: -finding.worker_seconds)


def _slow_workers(evidence: Evidence, _: BestTimes | None) -> Iterator[Finding]:
    for name, pace in evidence.paces.items():
        if pace.ratio is None or pace.ratio >= SLOW:
            continue
        parts = evidence.by_worker[name]
        decoding = parts["decode_full"] + parts["decode_below_waiting"] + parts["decode_below"]
        yield _finding(
            evidence,
            "slow_worker",
            name,
            pace.ratio,
            f"{name} grows responses at {pace.ratio:.2f} of the others' pace with as many at once: "
            f"{pace.tokens_per_second:.1f} tokens/s each, not {pace.tokens_per_second / pace.ratio:.1f}",
            "look at its node and GPU (clocks, other processes, memory), or take it out",
            decoding * (1 - pace.ratio),
        )


def _giant(evidence: Evidence, _: BestTimes | None) -> Iterator[Finding]:
    found, makespan = giant(evidence.trace), evidence.makespan
    if found is None or found.alone < ALONE * makespan:
        return
    fact, workers = found.fact, len(evidence.by_worker)
    yield _finding(
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
    advice = (
        "give the KV cache more room (engineArgs.gpu_memory_utilization, kv_cache_dtype, more GPUs a worker), or "
        "shorten contexts"
    )
    figure = empty.used / empty.slots if is_small else float(preempted)
    yield _finding(evidence, "kv", "kv", figure, says, advice, seconds)


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
    if best is not None and best.policy != own and best.itself >= BETTER * best.known:
        ratio = best.itself / best.known
        yield _finding(
            evidence,
            "policy",
            own,
            ratio,
            f"{best.policy} would have been {ratio:.2f} times as fast as {own} with these lengths, simulated",
            f"set rollout.policy: {best.policy}",
            (1 - 1 / ratio) * makespan * len(evidence.by_worker),
        )


def _parts(evidence: Evidence, best: BestTimes | None) -> Iterator[Finding]:
    trace, binding = evidence.trace, evidence.policy in BINDING_POLICIES
    least = f" The best order that knows no lengths takes {best.known:,.1f} s." if best is not None else ""
    slots = max((worker.slots for sample in trace.samples for worker in sample.workers.values()), default=0)
    room = max(1, slots * len(evidence.by_worker))
    texts: dict[PartName, tuple[Cause, str, str]] = {
        "store": (
            "store",
            "the store: workers waited for its answers with slots free",
            "look at the store's host and the network to it: CPU, disk (store.fsync), latency",
        ),
        "lost": (
            "lost",
            "workers were drained or lost before the end",
            "look at their logs and nodes; spot nodes and preemptions by others cost this",
        ),
        "weights": ("weights", "workers had nothing to do while weights were changed", "see `openseer weights status`"),
        "recompute": (
            "recompute",
            "engines computed contexts again for responses that had moved",
            "set spec.kvPool, so that contexts move along, or a larger rollout.quantumTokens",
        ),
        "idle": (
            "idle",
            "workers held nothing before the tail",
            "requests are bound to workers by the policy: set rollout.policy: context-aware"
            if binding
            else "why is not known from the run's folder: see the workers' logs",
        ),
        "boot": (
            "boot",
            "workers were not there yet",
            "start workers before the job, keep them (`openseer serve`), or cache image and model on the nodes",
        ),
        "prompts": (
            "prompts",
            "workers were there and the driver had not submitted a prompt",
            "give prompts as token ids, so that none is rendered, or a store of files nearer to the driver",
        ),
        "tail": (
            "tail",
            f"workers of {room:,} slots in all, for {len(trace.facts):,} requests, idled while the last ones ran",
            f"more requests in a batch, fewer workers, or workers.tailRelease in a cluster.{least}",
        ),
        "prefill": (
            "prefill",
            "engines computed contexts",
            "shorten prompts, or share them: requests of a group use one prefix where prefix caching is on",
        ),
    }
    for name, (cause, says, advice) in texts.items():
        seconds = evidence.sums[name]
        if evidence.share(seconds) < LEAST_SHARES[name] or (name == "tail" and _is_told(evidence)):
            continue
        worker, most = evidence.most(name)
        told = f"{says} for {seconds:,.1f} worker-seconds; most {worker}, {most:,.1f} s"
        subject = cause if cause in ("store", "weights") else named(_with(evidence, name))
        yield _finding(evidence, cause, subject, evidence.share(seconds), told, advice, seconds)


def _is_told(evidence: Evidence) -> bool:
    """Whether the tail is that of a giant, which is told by itself."""
    return any(_giant(evidence, None))


def _with(evidence: Evidence, part: PartName) -> list[str]:
    """Workers with the most of a part first."""
    found = {name: parts[part] for name, parts in evidence.by_worker.items() if parts[part] > 0}
    return sorted(found, key=lambda name: -found[name])


def _finding(
    evidence: Evidence, cause: Cause, subject: str, figure: float, says: str, advice: str, seconds: float
) -> Finding:
    return Finding(cause, subject, round(figure, 4), says, advice, seconds, evidence.share(seconds))


_RULES: tuple[_Rule, ...] = (_slow_workers, _giant, _kv, _policy, _parts)

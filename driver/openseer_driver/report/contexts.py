"""Counts a run's context tokens: computed, cached or fetched; gives the likely reason if a KV pool was not used."""

from collections import defaultdict

from openseer_core.worker.context_metrics import ContextCounts
from openseer_driver.report.trace import Trace, count_up


def sum_contexts(trace: Trace) -> ContextCounts:
    """Sums the counters of all workers over all their boots."""
    sums: defaultdict[str, float] = defaultdict(float)
    for name in trace.worker_names:
        samples = [sample.workers[name].contexts.values() for sample in trace.samples if name in sample.workers]
        for counter in samples[-1] if samples else ():
            sums[counter] += [0, *count_up(sample[counter] for sample in samples)][-1]
    return ContextCounts.of(sums)


def contexts_text(contexts: ContextCounts) -> str:
    """The counts as part of a sentence; "" if there are none."""
    if not contexts.computed:
        return ""
    parts = [
        f"{contexts.computed:,} were computed ({contexts.recomputed:,} again, of responses that had run before)",
        f"{contexts.cached:,} were in the engine's own cache",
    ]
    if contexts.fetched or contexts.saved_bytes:
        seconds = f"{contexts.fetched_bytes / 2**20:,.0f} MiB in {contexts.fetch_seconds:,.1f} s"
        parts.append(f"{contexts.fetched:,} were fetched from the KV pool ({seconds})")
    return ", ".join(parts)


def pool_line(contexts: ContextCounts, moves: int) -> str:
    """The use of a run's KV pool, as one line. `moves`: number of times that a response continued on another worker."""
    line = (
        f"KV pool: tokens of context computed {contexts.computed:,}, cached by engines {contexts.cached:,}, "
        f"fetched {contexts.fetched:,}"
    )
    return line if contexts.fetched else f"{line}; nothing was fetched: {_why_nothing(contexts, moves)}"


def _why_nothing(contexts: ContextCounts, moves: int) -> str:
    """The likely reason why nothing was fetched."""
    if not contexts.saved_bytes and contexts.unsaved_blocks:
        return "the pool refused all blocks; see the workers' logs"
    if not contexts.saved_bytes:
        return "no response filled a block of KV cache"
    if not moves:
        return "no response moved to another worker"
    if contexts.failed_fetches:
        return f"{contexts.failed_fetches:,} fetches failed; see the workers' logs"
    return "the moved contexts were short, or in the engine's cache, or faster to compute than to fetch"

"""What became of the contexts that engines took up in a run, and why a KV pool may have been of no use."""

from collections import defaultdict

from openseer_core.worker.context_metrics import ContextCounts
from openseer_driver.report.trace import Trace, count_up


def sum_contexts(trace: Trace) -> ContextCounts:
    """Over all workers and their boots, by their last samples."""
    sums: defaultdict[str, float] = defaultdict(float)
    for name in trace.worker_names:
        samples = [sample.workers[name].contexts.values() for sample in trace.samples if name in sample.workers]
        for counter in samples[-1] if samples else ():
            sums[counter] += [0, *count_up(sample[counter] for sample in samples)][-1]
    return ContextCounts.of(sums)


def contexts_text(contexts: ContextCounts) -> str:
    """In a sentence's words; "" where nothing is known."""
    if not contexts.computed:
        return ""
    parts = [
        f"{contexts.computed:,} were computed ({contexts.recomputed:,} of responses that had run before)",
        f"{contexts.cached:,} were in the engine's own cache",
    ]
    if contexts.fetched or contexts.saved_bytes:
        seconds = f"{contexts.fetched_bytes / 2**20:,.0f} MiB in {contexts.fetch_seconds:,.1f} s"
        parts.append(f"{contexts.fetched:,} were fetched from the KV pool ({seconds})")
    return ", ".join(parts)


def pool_line(contexts: ContextCounts, moves: int) -> str:
    """What a run's KV pool was good for, in a line. `moves`: how often a response went on at another worker."""
    line = (
        f"KV pool: tokens of context computed {contexts.computed:,}, cached by engines {contexts.cached:,}, "
        f"fetched {contexts.fetched:,}"
    )
    return line if contexts.fetched else f"{line}; nothing was fetched: {_why_nothing(contexts, moves)}"


def _why_nothing(contexts: ContextCounts, moves: int) -> str:
    """The likely reason."""
    if not contexts.saved_bytes and contexts.unsaved_blocks:
        return "the pool took no block, the workers' logs say why"
    if not contexts.saved_bytes:
        return "no response filled a block of KV cache"
    if not moves:
        return "no response moved to another worker"
    if contexts.failed_fetches:
        return f"{contexts.failed_fetches:,} fetches failed, the workers' logs say why"
    return "what moved was short, or in the engine's cache, or computing it was faster than the pool"

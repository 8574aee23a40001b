"""Converts a run folder into the inputs of the page's views: journal, groups, workers, series."""

from collections.abc import Iterator, Sequence

from openseer_api.page.lanes import NO_PACE, slow_words
from openseer_core.explain.paces import WorkerPace
from openseer_core.explain.parts import PartName
from openseer_core.ids import GroupId, RequestId
from openseer_core.manifest.job import RolloutJob
from openseer_core.queue.group import GroupView
from openseer_core.queue.messages import APPEND, JournalEntry
from openseer_core.queue.states import Event, Status
from openseer_core.wire.page import MOST_POINTS, Series, WorkerLane
from openseer_core.worker.draft_metrics import DraftMetrics, summed
from openseer_driver.explain.explanation import Explanation
from openseer_driver.report.trace import Fact, Trace, count_up, natural
from openseer_driver.run_lines import ChunkLine, SampleLine, WorkerSample

ENDS = {Status.OK: Event.COMPLETE, Status.ABORTED: Event.ABORT, Status.CARRIED_OVER: Event.CARRY}
"""The last event of a request, by the status of its result; any other status means FAIL."""
IDLE: tuple[PartName, ...] = ("prompts", "weights", "tail", "idle")
"""Parts of the time in which a worker is up and its engine has no request. Waits for the store are not included, since
the engine has requests during most of them."""
ABSENT: tuple[PartName, ...] = ("boot", "lost")
"""Parts of the time in which a worker is not up."""


def journal_of(facts: Sequence[Fact]) -> list[JournalEntry]:
    """Computes the journal from the results' chunks, sorted by time; at equal times claims are last."""
    entries = [entry for fact in facts for entry in _events(fact)]
    return sorted(entries, key=lambda entry: (entry.at, entry.event == Event.CLAIM))


def _events(fact: Fact) -> Iterator[JournalEntry]:
    request = str(RequestId(GroupId(fact.batch, fact.group), fact.index))

    def entry(at: float, event: str, chunk: ChunkLine | None, length: int) -> JournalEntry:
        worker, fence = (chunk.worker, chunk.fence) if chunk is not None else ("", 0)
        return JournalEntry(at, event, request, worker, fence, length)

    leases = [chunk for chunk in fact.chunks if chunk.event != APPEND]
    for chunk in leases:
        yield entry(chunk.claimed_at, Event.CLAIM, chunk, chunk.start)
        yield entry(chunk.ended_at, chunk.event, chunk, chunk.end)
    end = ENDS.get(Status(fact.status), Event.FAIL)
    if not leases or leases[-1].event != end:
        yield entry(fact.finished_at, end, leases[-1] if leases else None, fact.length)


def groups_of(facts: Sequence[Fact], job: RolloutJob) -> list[GroupView]:
    """Returns the groups that have results, in the order in which they were queued."""
    sizes: dict[tuple[int, str], int] = {}
    queued: dict[tuple[int, str], float] = {}
    for fact in facts:
        sizes[fact.group_key] = max(sizes.get(fact.group_key, job.spec.group_size), fact.index + 1)
        queued[fact.group_key] = min(queued.get(fact.group_key, fact.enqueued_at), fact.enqueued_at)
    longest = job.spec.sampling.max_tokens
    return [
        GroupView(GroupId(*key), 0, ordinal, sizes[key], longest, queued[key])
        for ordinal, key in enumerate(sorted(sizes, key=lambda key: queued[key]))
    ]


def requests_of(trace: Trace) -> int | None:
    """Returns the number of the run's requests. For an incomplete run it is the larger of the numbers in the samples
    and in the results; None if no sample contains it."""
    if trace.record.state == "complete":
        return len(trace.facts)
    sampled = max((sample.requests for sample in trace.samples), default=0)
    return max(sampled, len(trace.facts)) if sampled else None


def lanes_of_run(trace: Trace, explanation: Explanation) -> list[WorkerLane]:
    """Returns the lanes of the run's workers: state from the latest sample, pace from `explanation`."""
    latest: dict[str, WorkerSample] = {}
    for sample in trace.samples:
        latest |= sample.workers
    names = sorted({*trace.worker_names, *latest}, key=natural)
    paces = {name: WorkerPace(one.pace, one.pace_ratio) for name, one in explanation.workers.items()}
    return [
        _lane(name, latest.get(name, WorkerSample()), _tokens(trace.samples, name), trace.end, paces.get(name, NO_PACE))
        for name in names
    ]


def _lane(name: str, sample: WorkerSample, tokens: float, seconds: float, pace: WorkerPace) -> WorkerLane:
    return WorkerLane(
        worker=name,
        state="ended",
        slots=sample.slots,
        kv_used=sample.kv_used,
        tokens=round(tokens),
        tokens_per_second=round(tokens / seconds, 1) if seconds else None,
        acceptance_length=DraftMetrics(sample.drafts).acceptance_length or None,
        preemptions=sample.preemptions,
        pace_ratio=pace.ratio,
        slow=slow_words(pace),
    )


def gpu_seconds(explanation: Explanation, gpus: int) -> tuple[float, float]:
    """Returns the GPU-seconds in which workers were up without requests (idle), and with requests (busy). `gpus`:
    number of GPUs of one worker."""
    sums = {part.name: part.worker_seconds or 0.0 for part in explanation.parts}
    idle = sum(sums[part] for part in IDLE)
    busy = explanation.worker_seconds - idle - sum(sums[part] for part in ABSENT)
    return round(gpus * idle, 1), round(gpus * max(0.0, busy), 1)


def drafts_of(trace: Trace) -> DraftMetrics:
    """Sums the draft metrics in the latest sample of each worker; empty without drafts."""
    latest: dict[str, WorkerSample] = {}
    for sample in trace.samples:
        latest |= sample.workers
    return summed(DraftMetrics(one.drafts) for one in latest.values())


def _tokens(samples: Sequence[SampleLine], worker: str) -> float:
    counts = count_up(sample.workers[worker].tokens for sample in samples if worker in sample.workers)
    return counts[-1] if counts else 0.0


def series_of_run(samples: Sequence[SampleLine]) -> Series:
    """Returns metrics of the fleet over the run: from every n-th sample, at most MOST_POINTS of them."""
    step = max(1, -(-len(samples) // MOST_POINTS))
    shown = samples[::step]
    series = Series()
    before = shown[0] if shown else SampleLine(0.0)
    for sample in shown:
        workers = list(sample.workers.values())
        seconds = sample.at - before.at
        series.at.append(sample.at)
        series.running.append(sample.inflight)
        series.waiting.append(sample.waiting)
        series.tokens_per_second.append(round(max(0, sample.tokens - before.tokens) / seconds, 1) if seconds else 0.0)
        series.kv_used.append(round(sum(one.kv_used for one in workers) / len(workers), 4) if workers else 0.0)
        drafts = summed(DraftMetrics(one.drafts) for one in workers)
        series.acceptance_length.append(drafts.acceptance_length or None)
        before = sample
    return series

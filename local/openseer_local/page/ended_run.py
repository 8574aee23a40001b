"""Makes the page's views of an ended run from its folder; the views never change."""

from collections import Counter
from collections.abc import Mapping, Sequence

from openseer_api.http.problems import NotFoundProblem
from openseer_api.page.batch_views import batch_view
from openseer_api.page.book import BatchBook, LeaseRows
from openseer_api.page.job_views import bars_of
from openseer_api.page.shown import GroupViews
from openseer_core.ids import INITIAL_VERSION, GroupId
from openseer_core.manifest.generation import JobMode
from openseer_core.manifest.job import RolloutJob
from openseer_core.queue.batch import tail_start
from openseer_core.queue.states import Status
from openseer_core.wire.batches import Batch, BatchMetrics
from openseer_core.wire.page import (
    MOST_BARS_ENDED,
    JobCard,
    JobPulse,
    JobView,
    JobWord,
)
from openseer_driver.report.report import at_percent
from openseer_driver.report.trace import Fact, Trace, read_trace
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import RunState
from openseer_local.page.ended_explained import EndedExplanation, explanation_of
from openseer_local.page.ended_facts import (
    drafts_of,
    gpu_seconds,
    groups_of,
    journal_of,
    lanes_of_run,
    requests_of,
    series_of_run,
)
from openseer_local.page.ended_group import EndedGroup
from openseer_local.page.kept_results import KeptResults
from openseer_text.reading import Reader

WORDS: Mapping[RunState, JobWord] = {
    "running": "failed",
    "stopped": "finished",
    "complete": "finished",
    "failed": "failed",
}
"""State of the run in the page, by the state in its folder; an ended run that is "running" there was killed."""


class EndedRun:
    """The views of a run folder. `reader`: decodes tokens with the model's tokenizer; None if the tokenizer is not on
    this machine, and `no_text` is the reason."""

    def __init__(self, folder: RunFolder, job: RolloutJob, reader: Reader | None = None, no_text: str = "") -> None:
        self._folder, self._job, self._reader, self._no_text = folder, job, reader, no_text
        self._results = KeptResults(folder)
        self._trace = trace = read_trace(folder)
        self._explanation = explanation_of(trace)
        self._explained = EndedExplanation(folder, trace, self._explanation)
        self._lanes = lanes_of_run(trace, self._explanation)
        self._now = max((fact.finished_at for fact in trace.facts), default=0.0)
        self._leases = LeaseRows(MOST_BARS_ENDED)
        self._books: dict[int, BatchBook] = {}
        self._written: dict[object, bytes] = {}
        """Views as JSON, cached: they never change, and a viewer requests each of them every second."""
        views, entries = groups_of(trace.facts, job), journal_of(trace.facts)
        for number in sorted({fact.batch for fact in trace.facts}):
            book = self._books[number] = BatchBook(number, LeaseRows(0))
            of_batch = [view for view in views if view.id.batch == number]
            book.learn(len(of_batch), of_batch)
            book.note(entry for entry in entries if entry.request.startswith(f"{number}/"))
        for entry in entries:
            self._leases.note(entry)

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name of the job."""
        return self._job.namespace, self._job.name

    @property
    def mode(self) -> JobMode:
        """Mode of the job."""
        return self._job.spec.mode

    async def card(self) -> JobCard:
        """Returns a summary of the run."""
        record, tokens = self._trace.record, sum(fact.length for fact in self._trace.facts)
        reason = record.reason or {"running": "it was killed", "complete": "it is complete"}.get(
            record.state, record.state
        )
        requests = requests_of(self._trace)
        idle, busy = gpu_seconds(self._explanation, self._job.spec.workers.parallelism.gpus)
        return JobCard(
            namespace=self._job.namespace,
            name=self._job.name,
            mode=self._job.spec.mode,
            state=WORDS[record.state],
            reason=reason,
            workers=len(self._trace.worker_names),
            workers_wanted=self._job.spec.workers.replicas,
            batches=len(self._books),
            progress=len(self._trace.facts) / requests if requests else None,
            tokens=tokens,
            tokens_per_second=round(tokens / self._trace.end, 1) if self._trace.end else None,
            acceptance_length=drafts_of(self._trace).acceptance_length or None,
            idle_gpu_seconds=idle,
            busy_gpu_seconds=busy,
        )

    async def explained(self) -> bytes:
        """Returns an Explained as JSON, with the best possible times after their simulation."""
        return await self._explained.view()

    async def job_view(self) -> bytes:
        """Returns a JobView of the whole run as JSON."""
        if "job" not in self._written:
            self._written["job"] = (await self._job_view()).model_dump_json().encode()
        return self._written["job"]

    async def _job_view(self) -> JobView:
        spec, lanes = self._job.spec, self._lanes
        return JobView(
            now=self._now,
            live=False,
            card=await self.card(),
            model=spec.model.path,
            engine=spec.model.engine,
            policy=spec.rollout.policy,
            weights_version=INITIAL_VERSION,
            lanes=lanes,
            bars=bars_of(self._leases, lanes, float("-inf"), MOST_BARS_ENDED),
            series=series_of_run(self._trace.samples),
            batches=self._batches(),
        )

    async def job_pulse(self) -> bytes:
        """Returns a JobPulse as JSON; its content never changes."""
        if "pulse" not in self._written:
            pulse = JobPulse(now=self._now, card=await self.card(), lanes=self._lanes)
            self._written["pulse"] = pulse.model_dump_json().encode()
        return self._written["pulse"]

    async def batch_view(self, number: int) -> bytes:
        """Returns a BatchView as JSON. Raises NotFoundProblem."""
        if number in self._written:
            return self._written[number]
        batch = next((one for one in self._batches() if one.id == number), None)
        if batch is None:
            raise NotFoundProblem(f"the run has no batch {number}")
        view = batch_view(self._books[number], batch, [], 0, self._now, live=False)
        self._written[number] = view.model_dump_json().encode()
        return self._written[number]

    def group_views(self, group: GroupId, index: int | None, place: str = "") -> GroupViews:
        """Returns the source of one group's views for one viewer. `index`: only this response; `place`: id of the
        viewer's last view."""
        return EndedGroup(self._results, group, index, self._books, self._reader, self._now, place, self._no_text)

    def _batches(self) -> list[Batch]:
        return [_batch(book, self._trace, self._job) for book in self._books.values()]


def _batch(book: BatchBook, trace: Trace, job: RolloutJob) -> Batch:
    facts = [fact for fact in trace.facts if fact.batch == book.number]
    elsewhere, requests = len(trace.facts) - len(facts), requests_of(trace)
    requests = 0 if requests is None else requests - elsewhere
    return Batch(
        id=book.number,
        job=f"{job.namespace}/{job.name}",
        opened_at=min((fact.enqueued_at for fact in facts), default=0.0),
        state="complete" if trace.record.state == "complete" else "sealed",
        weights_version=INITIAL_VERSION,
        purpose="train",
        priority="normal",
        progress=len(facts) / requests if requests else 0.0,
        metrics=_metrics(book, facts, requests, trace, job.spec.group_size),
    )


def _metrics(book: BatchBook, facts: Sequence[Fact], requests: int, trace: Trace, group_size: int) -> BatchMetrics:
    """`requests`: number of the batch's requests, 0 if not known."""
    drafts, finishes = drafts_of(trace), sorted(trace.clock.at(fact.finished_at) for fact in facts)
    counts, tokens = Counter(fact.status for fact in facts), sum(fact.length for fact in facts)
    is_whole = trace.record.state == "complete"
    whole = [fact.length for fact in facts if fact.status == Status.OK]
    return BatchMetrics(
        groups=max(len(book.groups), requests // group_size) if requests else 0,
        groups_finished=sum(not group.is_open for group in book.groups.values()),
        groups_whole=sum(group.words["ok"] == group.view.size for group in book.groups.values()),
        requests=requests,
        requests_ok=counts[Status.OK],
        requests_aborted=counts[Status.ABORTED],
        requests_infra_failed=counts[Status.INFRA_FAILED],
        requests_carried_over=counts[Status.CARRIED_OVER],
        tokens=tokens,
        seconds=round(trace.end, 3),
        tokens_per_second=round(tokens / trace.end, 1) if trace.end else 0.0,
        length_mean=sum(whole) / len(whole) if whole else 0.0,
        length_max=max(whole, default=0),
        tail_seconds=at_percent(finishes, 100) - tail_start(finishes) if is_whole else 0.0,
        drafted_tokens=drafts.drafted,
        accepted_tokens=drafts.accepted,
        draft_share=drafts.draft_share,
        acceptance_length=drafts.acceptance_length or 1.0,
    )

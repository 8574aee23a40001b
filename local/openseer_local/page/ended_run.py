"""A run that has ended, from its folder: the same views as of one that goes on, none of which changes."""

from collections import Counter
from collections.abc import Mapping, Sequence

from openseer_api.http.problems import NotFoundProblem
from openseer_api.page.batch_views import batch_view
from openseer_api.page.book import BatchBook, LeaseRows
from openseer_api.page.group_views import STATES, TokenTexts
from openseer_api.page.job_views import bars_of
from openseer_api.page.shown import View
from openseer_core.ids import INITIAL_VERSION, GroupId
from openseer_core.manifest.generation import JobMode
from openseer_core.manifest.job import RolloutJob
from openseer_core.queue.states import State, Status
from openseer_core.wire.batches import Batch, BatchMetrics, ChunkInfo
from openseer_core.wire.page import (
    MOST_BARS_ENDED,
    MOST_SIBLINGS,
    MOST_TOKENS,
    GroupPage,
    JobCard,
    JobPulse,
    JobView,
    JobWord,
    RequestWord,
    ResponseView,
)
from openseer_driver.report.trace import Fact, Trace, read_trace
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ResultLine, RunState
from openseer_local.page.ended_explained import EndedExplanation, explanation_of
from openseer_local.page.ended_facts import gpu_seconds, groups_of, journal_of, lanes_of_run, requests_of, series_of_run
from openseer_text.reading import Reader

WORDS: Mapping[RunState, JobWord] = {
    "running": "failed",
    "stopped": "finished",
    "complete": "finished",
    "failed": "failed",
}
RESPONSES: Mapping[str, RequestWord] = {
    Status.OK: STATES[State.DONE],
    Status.ABORTED: STATES[State.ABORTED],
    Status.CARRIED_OVER: STATES[State.CARRIED],
}


class EndedRun:
    """The views of a run folder. `reader`: of the model's tokenizer, None where it is not here."""

    def __init__(self, folder: RunFolder, job: RolloutJob, reader: Reader | None = None) -> None:
        self._folder, self._job, self._reader = folder, job, reader
        self._trace = trace = read_trace(folder)
        self._places = folder.result_places()
        self._explanation = explanation_of(trace)
        self._explained = EndedExplanation(folder, trace, self._explanation)
        self._lanes = lanes_of_run(trace, self._explanation)
        self._now = max((fact.finished_at for fact in trace.facts), default=0.0)
        self._leases = LeaseRows(MOST_BARS_ENDED)
        self._books: dict[int, BatchBook] = {}
        self._written: dict[object, bytes] = {}
        """Views as JSON: none changes, and each is asked for every second."""
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
        """Namespace and name."""
        return self._job.namespace, self._job.name

    @property
    def mode(self) -> JobMode:
        """Of the job."""
        return self._job.spec.mode

    async def card(self) -> JobCard:
        """The run at a glance."""
        record, tokens = self._trace.record, sum(fact.length for fact in self._trace.facts)
        reason = record.reason or {"running": "it was killed", "complete": "all its results are there"}.get(
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
            idle_gpu_seconds=idle,
            busy_gpu_seconds=busy,
        )

    async def explained(self) -> bytes:
        """An Explained: of what the folder tells, with the best times once they are simulated."""
        return await self._explained.view()

    async def job_view(self) -> bytes:
        """A JobView of the whole run."""
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
        """A JobPulse, which says nothing new."""
        if "pulse" not in self._written:
            pulse = JobPulse(now=self._now, card=await self.card(), lanes=self._lanes)
            self._written["pulse"] = pulse.model_dump_json().encode()
        return self._written["pulse"]

    async def batch_view(self, number: int) -> bytes:
        """A BatchView. Raises NotFoundProblem."""
        if number in self._written:
            return self._written[number]
        batch = next((one for one in self._batches() if one.id == number), None)
        if batch is None:
            raise NotFoundProblem(f"the run has no batch {number}")
        view = batch_view(self._books[number], batch, [], 0, self._now, live=False)
        self._written[number] = view.model_dump_json().encode()
        return self._written[number]

    def group_views(self, group: GroupId, index: int | None) -> View:
        """GroupPages for one viewer, piece by piece."""
        return EndedGroup(self._folder, self._lines_of(group, index), group, self._books, self._reader, self._now).view

    def _lines_of(self, group: GroupId, index: int | None) -> list[int]:
        found = {key[2]: place for key, place in self._places.items() if key[:2] == (group.batch, group.name)}
        return [found[one] for one in sorted(found) if index in (None, one)]

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
    """`requests`: of the batch, 0 where it is not known."""
    counts, tokens = Counter(fact.status for fact in facts), sum(fact.length for fact in facts)
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
    )


class EndedGroup:
    """A group's results for one viewer. `places`: of their lines in the folder's results."""

    def __init__(
        self,
        folder: RunFolder,
        places: Sequence[int],
        group: GroupId,
        books: Mapping[int, BatchBook],
        reader: Reader | None,
        now: float,
    ) -> None:
        self._lines = [folder.result_at(place) for place in places[:MOST_SIBLINGS]]
        self._left_out = max(0, len(places) - MOST_SIBLINGS)
        self._group, self._books, self._reader, self._now = group, books, reader, now
        self._sent: dict[int, int] = {}
        known: dict[int, str] = {}
        self._texts = {line.index: TokenTexts(reader, known) for line in self._lines} if reader is not None else {}

    async def view(self) -> bytes:
        """A GroupPage. Raises NotFoundProblem."""
        if not self._lines:
            raise NotFoundProblem(f"the run has no results of group {self._group}")
        book = self._books[self._group.batch].groups[self._group.name]
        prompt = self._lines[0].prompt_token_ids
        text = self._reader.whole(prompt) if self._reader is not None else " ".join(map(str, prompt))
        page = GroupPage(
            now=self._now,
            live=False,
            batch=self._group.batch,
            name=self._group.name,
            prompt=text,
            prompt_tokens=len(prompt),
            max_tokens=book.view.max_tokens,
            estimate=book.estimate,
            responses=[self._response(line) for line in self._lines],
            left_out=self._left_out,
        )
        return page.model_dump_json().encode()

    def _response(self, line: ResultLine) -> ResponseView:
        start = self._sent.get(line.index, 0)
        tokens = line.token_ids[start : start + MOST_TOKENS]
        end = self._sent[line.index] = start + len(tokens)
        texts = self._texts.get(line.index)
        known = ChunkInfo.model_fields.keys() - {"version"}
        chunks = [
            ChunkInfo(version=line.weights_version, **{name: getattr(chunk, name) for name in known})
            for chunk in line.chunks
        ]
        return ResponseView(
            index=line.index,
            state=RESPONSES.get(line.status, "failed"),
            reason=line.finish_reason if line.status == Status.OK else line.stop_reason or line.finish_reason,
            length=len(line.token_ids),
            start=start,
            tokens=tokens,
            text=texts.feed(tokens) if texts is not None else None,
            logprobs=line.logprobs[start:end] if line.logprobs is not None else None,
            chunks=chunks,
        )

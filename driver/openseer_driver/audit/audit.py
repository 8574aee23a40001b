"""The audit of a run: compares its results with the store's records, journal and submitted groups.

Memory grows with the number of requests, not with their tokens.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, dataclass, field

from openseer_core.errors import AuditError
from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.messages import JournalEntry, Result
from openseer_core.queue.states import FINAL_STATES
from openseer_driver.audit.rules import (
    JournalCheck,
    Life,
    SubmittedGroup,
    Violation,
    check_result,
    check_stored,
    check_weights,
    is_reissued,
    submitted_group,
)
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ResultLine
from openseer_store.port import FIRST_CURSOR, DriverStore

PAGE = 1000
"""Limit of entries in one read of the store."""
SHOWN = 200
"""Limit of violations kept as lines; all are counted."""


@dataclass(slots=True)
class AuditReport:
    """The counts of an audit and the violations that it found."""

    groups: int = 0
    requests: int = 0
    results: int = 0
    events: int = 0
    unfinished: int = 0
    """Requests of an unfinished run that have no result yet."""
    epochs: int = 0
    """Number of store epochs with a claim: more than one if the store was killed."""
    lost_ends: int = 0
    """Leases of an earlier epoch whose end the store has lost."""
    reissued: int = 0
    """Results that the store lost and that were generated again in a later epoch; the first written line is kept."""
    rows: int = 0
    """Rows of routed experts that the results should have."""
    rows_missing: int = 0
    """Rows that are missing; not a violation, since each result lists its missing rows."""
    violations: list[Violation] = field(default_factory=list[Violation])
    by_kind: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def ok(self) -> bool:
        """Whether there is no violation."""
        return not self.by_kind

    def count(self, line: ResultLine) -> None:
        """Counts a result and its rows of routed experts."""
        self.results += 1
        if line.routed_experts is not None:
            self.rows += line.routed_experts.shape[0]
            self.rows_missing += line.routed_experts.gaps

    def add(self, violation: Violation) -> None:
        """Counts a violation and keeps the first SHOWN ones."""
        self.by_kind[violation.kind] = self.by_kind.get(violation.kind, 0) + 1
        if len(self.violations) < SHOWN:
            self.violations.append(violation)

    def lines(self) -> list[str]:
        """The verdict as text, then one line per violation."""
        checked = f"{self.requests:,} requests, {self.results:,} results, {self.events:,} events checked"
        if self.unfinished:
            checked += f" ({self.unfinished:,} requests not finished yet)"
        if self.epochs > 1:
            checked += f", {self.epochs:,} epochs of the store, {self.reissued:,} results reissued"
        if self.rows:
            checked += f", {self.rows_missing:,} of {self.rows:,} rows of routed experts missing"
        if self.ok:
            return [f"{checked}: no violation"]
        total = sum(self.by_kind.values())
        rest = total - len(self.violations)
        more = [f"… and {rest:,} more"] if rest else []
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.by_kind.items()))
        head = f"{checked}: {total:,} violation{'s' if total != 1 else ''} ({kinds})"
        return [head, *map(str, self.violations), *more]

    def as_dict(self) -> dict[str, object]:
        """All fields and `ok`, for `--json` and audit.json."""
        return {"ok": self.ok, **asdict(self)}

    def require(self) -> None:
        """Raises AuditError with all `lines` if there is a violation."""
        if not self.ok:
            raise AuditError("\n".join(self.lines()))


async def audit(
    store: DriverStore,
    run: RunFolder | Iterable[ResultLine],
    batches: Sequence[int],
    *,
    finished: bool | None = None,
) -> AuditReport:
    """Checks every request of `batches` and every result of `run`.

    `finished`: whether every request must have a result. None: true if run.json's state is complete, and for `run`
    without a folder.
    """
    report = AuditReport()
    submitted = await _submitted(store, batches, report)
    journal = await _journal(store, batches, submitted, report)
    if finished is None:
        finished = run.read_run().state == "complete" if isinstance(run, RunFolder) else True
    results = run.results() if isinstance(run, RunFolder) else run
    seen, newest = await _results(store, results, submitted, journal, report)
    unwritten: set[RequestId] = set()
    if not finished:
        for batch in batches:
            unwritten |= await _unwritten(store, batch, newest.get(batch, FIRST_CURSOR)) - seen
    report.unfinished += len(unwritten)
    _missing(submitted, journal, seen | unwritten, report, finished=finished)
    for violation in check_weights(await store.fleet_spec(), await store.workers()):
        report.add(violation)
    for batch in batches:
        await _counts(store, batch, submitted, seen, report, finished=finished)
    return report


async def _submitted(store: DriverStore, batches: Sequence[int], report: AuditReport) -> dict[GroupId, SubmittedGroup]:
    submitted: dict[GroupId, SubmittedGroup] = {}
    for batch in batches:
        async for spec in _groups(store, batch):
            if spec.id in submitted:
                report.add(Violation("doubled", str(spec.id), "a group submitted twice", "once"))
            submitted[spec.id] = submitted_group(spec)
    report.groups = len(submitted)
    report.requests = sum(group.size for group in submitted.values())
    return submitted


async def _journal(
    store: DriverStore, batches: Sequence[int], submitted: dict[GroupId, SubmittedGroup], report: AuditReport
) -> JournalCheck:
    check = JournalCheck()
    async for entry in _entries(store, batches):
        request = RequestId.parse(entry.request)
        if not _is_submitted(request, submitted):
            report.add(Violation("unknown", entry.request, f"a journal event {entry.event}", "no such request"))
            continue
        for violation in check.take(entry):
            report.add(violation)
    report.events, report.epochs, report.lost_ends = check.events, len(check.epochs), check.lost_ends
    return check


async def _results(
    store: DriverStore,
    results: Iterable[ResultLine],
    submitted: dict[GroupId, SubmittedGroup],
    journal: JournalCheck,
    report: AuditReport,
) -> tuple[set[RequestId], dict[int, int]]:
    """Checks the results. Returns the requests that have a result, and the last cursor of each batch."""
    seen: set[RequestId] = set()
    cursors: set[tuple[int, int]] = set()
    newest: dict[int, int] = {}
    for line in results:
        request = line.request
        report.count(line)
        if not _is_submitted(request, submitted):
            report.add(Violation("unknown", str(request), "a result", "no such request was submitted"))
            continue
        if request in seen:
            report.add(Violation("doubled", str(request), "one more result", "exactly one"))
            continue
        seen.add(request)
        if (line.batch, line.cursor) in cursors:
            report.add(Violation("cursor", str(request), f"cursor {line.cursor}", "a cursor that no other result has"))
        cursors.add((line.batch, line.cursor))
        newest[line.batch] = max(line.cursor, newest.get(line.batch, FIRST_CURSOR))
        for violation in check_result(line, submitted[request.group]):
            report.add(violation)
        record = await store.record(request)
        life = journal.lives.get(str(request), Life())
        if is_reissued(line, record, life):
            report.reissued += 1
            continue
        for violation in check_stored(line, record, life):
            report.add(violation)
    return seen, newest


async def _unwritten(store: DriverStore, batch: int, cursor: int) -> set[RequestId]:
    """Requests whose results are in the store after `cursor`: the next driver will write them."""
    found: set[RequestId] = set()
    while page := await store.results(batch, cursor, PAGE):
        found.update(entry.request for entry in page if isinstance(entry, Result))
        cursor = page[-1].cursor
    return found


def _missing(
    submitted: dict[GroupId, SubmittedGroup],
    journal: JournalCheck,
    seen: set[RequestId],
    report: AuditReport,
    *,
    finished: bool,
) -> None:
    for group, spec in submitted.items():
        for request in (RequestId(group, index) for index in range(spec.size)):
            if request in seen:
                continue
            state = journal.lives.get(str(request), Life()).state
            if finished or state in FINAL_STATES:
                report.add(Violation("missing", str(request), f"no result while {state}", "exactly one"))
            else:
                report.unfinished += 1


async def _counts(
    store: DriverStore,
    batch: int,
    submitted: dict[GroupId, SubmittedGroup],
    seen: set[RequestId],
    report: AuditReport,
    *,
    finished: bool,
) -> None:
    progress = await store.progress(batch)
    requests = sum(group.size for name, group in submitted.items() if name.batch == batch)
    results = sum(request.group.batch == batch for request in seen)
    if progress.requests != requests:
        report.add(Violation("count", f"batch {batch}", f"{progress.requests} requests counted", str(requests)))
    if finished and progress.closed != results:
        report.add(Violation("count", f"batch {batch}", f"{progress.closed} results counted", str(results)))


def _is_submitted(request: RequestId, submitted: dict[GroupId, SubmittedGroup]) -> bool:
    group = submitted.get(request.group)
    return group is not None and 0 <= request.index < group.size


async def _groups(store: DriverStore, batch: int) -> AsyncIterator[GroupSpec]:
    submitted = (await store.progress(batch)).groups
    for start in range(0, submitted, PAGE):  # a page omits groups that an acknowledgement has freed
        for spec in await store.groups(batch, start, PAGE):
            yield spec


async def _entries(store: DriverStore, batches: Sequence[int]) -> AsyncIterator[JournalEntry]:
    for batch in batches:
        start = 0
        while page := await store.journal(batch, start, PAGE):
            for entry in page:
                yield entry
            start += len(page)

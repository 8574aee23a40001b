"""The input of an audit: store and results of a simulated run, which tests falsify."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import msgspec

from openseer_core.ids import RequestId
from openseer_core.model.job_queue import JobQueue
from openseer_core.queue.batch import Entry
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.messages import BatchProgress, JournalEntry, RequestRecord
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.worker.heartbeat import WorkerStatus
from openseer_driver.audit.audit import AuditReport, audit
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ResultLine
from openseer_store.port import DriverStore
from tests.driver.sample_runs import SMALL

SHAPE = replace(SMALL, groups=5, size=4, mean=150.0, quantum=64, killed=2.0, slots=4)
RESULTS = SHAPE.groups * SHAPE.size


class Evidence:
    """The store side of an audit, from a simulated queue, with a test's changes."""

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue
        self.entries = queue.journal(0, 0, 1_000_000)
        self.records: dict[str, RequestRecord] = {}
        self.fleet: list[WorkerStatus] = []
        self.spec = FleetSpec()

    async def groups(self, batch: int, start: int, limit: int) -> list[GroupSpec]:
        return self.queue.groups(batch, start, limit)

    async def results(self, batch: int, cursor: int, limit: int) -> list[Entry]:
        return self.queue.results(batch, cursor, limit)

    async def journal(self, batch: int, start: int, limit: int) -> list[JournalEntry]:
        return self.entries[start : start + limit]

    async def record(self, request: RequestId, start: int = 0) -> RequestRecord:
        return self.records.get(str(request)) or self.queue.record(request, start)

    async def fleet_spec(self) -> FleetSpec:
        return self.spec

    async def workers(self) -> list[WorkerStatus]:
        return self.fleet

    async def progress(self, batch: int) -> BatchProgress:
        return self.queue.progress(batch)

    def change_entry(self, place: int, **fields: object) -> JournalEntry:
        """Forges one event of the journal."""
        self.entries[place] = replace(self.entries[place], **fields)
        return self.entries[place]

    def place_of(self, event: str, request: str = "", *, after: int = -1) -> int:
        """Position in the journal of the first such event after `after`."""
        return next(
            place
            for place, entry in enumerate(self.entries)
            if place > after and entry.event == event and request in ("", entry.request)
        )


async def audited(evidence: Evidence, results: Sequence[ResultLine] | RunFolder) -> AuditReport:
    return await audit(cast(DriverStore, evidence), results, [0])


def changed(line: ResultLine, **fields: object) -> ResultLine:
    return msgspec.structs.replace(line, **fields)

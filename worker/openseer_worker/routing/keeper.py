"""The rows of routed experts of a worker's leases: the first position to capture, and the rows to be written."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from openseer_core.ids import WorkerId
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.messages import Claim, Reply, WriteOutcome
from openseer_core.routed_rows import RowShape, Stretch
from openseer_core.tokens import count_items
from openseer_store.routed.places import context_file, group_folder, lease_file, prompt_file
from openseer_store.routed.records import pack_record, read_records
from openseer_worker.engine import EngineOutput
from openseer_worker.routing.writer import RowWriter

KNOWN_PROMPTS = 65_536
"""Limit of prompts that are remembered as having their rows on file; for others the folder is read again."""


@dataclass(slots=True)
class _Lease:
    """A lease whose rows are captured.

    `held`: tokens of the response before the lease; `first`: position of the lease's first row; `prompt`: the file for
    the prompt's rows if this lease computes them, else None; `prompt_rows`: the prompt's rows so far, from position 0
    on; `unsaved`: the lease's rows that are not written. `context`: the file for rows of tokens that a trainer has
    appended, up to position `context_end`; other responses need it, because they may find the KV of these tokens
    cached.
    """

    file: Path
    held: int
    prompt_tokens: int
    first: int
    prompt: Path | None = None
    prompt_rows: bytearray = field(default_factory=bytearray)
    unsaved: list[Stretch] = field(default_factory=list[Stretch])
    context: Path | None = None
    context_end: int = 0


class RouteKeeper:
    """Writes the rows of one worker's leases to `folder`. `shape`: of the engine's rows. Without a shape or a folder no
    rows are captured."""

    def __init__(self, folder: Path | None, shape: RowShape | None, worker: WorkerId) -> None:
        self._folder = folder
        self._shape = shape
        self._worker = str(worker)
        self._writer = RowWriter(folder) if folder is not None else None
        self._leases: dict[str, _Lease] = {}
        self._prompts: OrderedDict[Path, None] = OrderedDict()
        self._pending: dict[Path, _Lease] = {}
        """The lease that computes a prompt's rows, by the prompt's file."""

    @property
    def is_on(self) -> bool:
        """Whether rows are captured."""
        return self._folder is not None and self._shape is not None

    def rows_from(self, key: str) -> int | None:
        """Returns the first position whose row the engine must return, 0 for the whole prompt; None for no rows."""
        lease = self._leases.get(key)
        if lease is None:
            return None
        return lease.first if lease.prompt is None else 0

    async def begin(self, claims: Iterable[Claim], version: str) -> None:
        """Adds new leases. `version`: of the worker's weights.

        If a prompt's rows are not on file, one of the group's leases at this worker computes them.
        """
        assert self._folder is not None and self._writer is not None
        wanted: dict[Path, _Lease] = {}
        for claim in claims:
            if parse_sampling(claim.sampling).score_from is not None:
                continue
            prompt, group = count_items(claim.prompt), group_folder(self._folder, claim.request.group)
            file = group / lease_file(claim.request, claim.generated, claim.fence, self._worker)
            first = max(0, prompt + claim.generated - claim.appended - 1)
            lease = self._leases[claim.key] = _Lease(file, claim.generated, prompt, first)
            if claim.appended:
                lease.context = group / context_file(claim.version or version, claim.prompt + claim.tokens)
                lease.context_end = prompt + claim.generated - 1
            rows = group / prompt_file(claim.version or version, claim.prompt)
            if prompt > 1 and rows not in self._prompts and rows not in self._pending:
                wanted.setdefault(rows, lease)
        if not wanted:
            return
        found = await self._writer.ask(list(wanted), lambda file: self._is_whole(file, wanted[file].prompt_tokens - 1))
        for (rows, lease), is_there in zip(wanted.items(), found, strict=True):
            if is_there:
                self._note_prompt(rows)
            else:
                lease.prompt = rows
                self._pending[rows] = lease

    def _is_whole(self, file: Path, rows: int) -> bool:
        """Whether a prompt's file has all `rows` rows; a machine that failed may have written only a part.

        Raises OSError.
        """
        if self._shape is None:
            return False
        found = [(shape, start, len(data)) for shape, (start, data) in read_records(file.name, file.read_bytes())]
        return found == [(self._shape, 0, rows * self._shape.row_bytes)]

    def take(self, output: EngineOutput) -> None:
        """Adds the rows in an output of the engine to its lease."""
        lease = self._leases.get(output.key) if output.routes else None
        if lease is None or self._shape is None:
            return
        size = self._shape.row_bytes
        for start, rows in output.routes:
            have = len(lease.prompt_rows) // size
            if lease.prompt is not None and start <= have:  # after a preemption the engine computes from 0 again
                lease.prompt_rows += rows[(have - start) * size : (lease.prompt_tokens - 1 - start) * size]
            own = max(start, lease.first)
            if kept := rows[(own - start) * size :]:
                lease.unsaved.append(Stretch(own, kept))

    async def keep(self, keys: Sequence[str], *, ended: bool) -> None:
        """Writes the unwritten rows of leases; only after it returns may the store receive their tokens. `ended`: these
        rows are the leases' last."""
        assert self._writer is not None and self._shape is not None
        leases = [self._leases[key] for key in keys if key in self._leases]
        pieces: list[tuple[Path, bytes]] = []
        # The writes run concurrently, since each may have to wait for the folder. Every call also writes the complete
        # rows of prompts, because the first result of a group needs them.
        writes = [self._keep_prompt(lease) for lease in [*self._pending.values()] if self._has_prompt(lease)]
        for lease in leases:
            if lease.unsaved:
                stretches = _joined(lease.unsaved, self._shape)
                pieces.append((lease.file, self._records(lease.file, stretches)))
                if lease.context is not None and stretches[0].start < lease.context_end:
                    size = self._shape.row_bytes
                    early = [Stretch(at, rows[: max(0, lease.context_end - at) * size]) for at, rows in stretches]
                    pieces.append((lease.context, self._records(lease.context, early)))
                lease.unsaved = []
        done = [file for lease in leases for file in _files(lease)] if ended else []
        if pieces or done:
            writes.append(self._writer.append(pieces, done))
        await asyncio.gather(*writes)

    def _has_prompt(self, lease: _Lease) -> bool:
        """Whether a lease has all rows of its prompt, and they are not written yet."""
        assert self._shape is not None
        return lease.prompt is not None and len(lease.prompt_rows) >= (lease.prompt_tokens - 1) * self._shape.row_bytes

    def _records(self, file: Path, stretches: list[Stretch]) -> bytes:
        assert self._shape is not None
        return b"".join(pack_record(file.name, self._shape, stretch) for stretch in stretches if stretch.rows)

    async def _keep_prompt(self, lease: _Lease) -> None:
        assert self._writer is not None and self._shape is not None and lease.prompt is not None
        rows, lease.prompt = lease.prompt, None
        self._pending.pop(rows, None)
        record = pack_record(rows.name, self._shape, Stretch(0, bytes(lease.prompt_rows)))
        lease.prompt_rows = bytearray()
        if await self._writer.put(rows, record):
            self._note_prompt(rows)

    def note_replies(self, keys: Sequence[str], replies: Sequence[Reply], *, ended: bool) -> None:
        """Removes the leases that have ended by the store's replies to writes. `ended`: the writes were the last ones.

        After a gap a lease continues, unless the store has lost tokens from before the lease.
        """
        over: list[_Lease] = []
        for key, reply in zip(keys, replies, strict=True):
            lease = self._leases.get(key)
            if lease is None or not _is_over(reply, lease.held, ended=ended):
                continue
            over.append(self._leases.pop(key))
        for lease in over:
            if lease.prompt is not None:
                self._pending.pop(lease.prompt, None)
        if over and self._writer is not None:
            self._writer.close([file for lease in over for file in _files(lease)])

    def metrics(self) -> dict[str, float | int | str]:
        """Returns the bytes of rows that could not be written, for heartbeats."""
        return {"routes_lost_bytes": self._writer.lost_bytes} if self.is_on and self._writer is not None else {}

    def _note_prompt(self, rows: Path) -> None:
        self._prompts[rows] = None
        if len(self._prompts) > KNOWN_PROMPTS:
            self._prompts.popitem(last=False)


def _files(lease: _Lease) -> list[Path]:
    """Returns the files to which a lease's rows are appended."""
    return [lease.file] if lease.context is None else [lease.file, lease.context]


def _is_over(reply: Reply, held: int, *, ended: bool) -> bool:
    if reply.outcome is WriteOutcome.GAP:
        return reply.have < held
    return reply.outcome is WriteOutcome.LOST or (ended and reply.outcome is WriteOutcome.OK)


def _joined(stretches: list[Stretch], shape: RowShape) -> list[Stretch]:
    """Joins adjacent stretches, so that fewer record headers are written."""
    joined: list[Stretch] = []
    start, parts, end = 0, list[bytes | memoryview](), -1
    for stretch in stretches:
        if stretch.start != end and parts:
            joined.append(Stretch(start, b"".join(parts)))
            parts = []
        start = start if parts else stretch.start
        parts.append(stretch.rows)
        end = stretch.start + len(stretch.rows) // shape.row_bytes
    return [*joined, Stretch(start, b"".join(parts))]

"""From a trainer's groups to queued ones: checked, rendered, placed by the policy, submitted in bounded pieces."""

from openseer_api.http.problems import BusyProblem
from openseer_api.job.context import JobContext
from openseer_api.job.history import with_earlier
from openseer_api.job.sampling import check_min_p
from openseer_core.errors import InputError, ModelError
from openseer_core.ids import GroupId
from openseer_core.manifest.prompts import PromptLine
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.batch import BatchRecord
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.placement import group_metadata
from openseer_core.queue.policy import RESERVE, TIERS
from openseer_core.tokens import pack_tokens
from openseer_core.weights.transaction import takes_groups
from openseer_core.wire.batches import Group, UploadReceipt
from openseer_text.rendering import Rendered, TextCodec, misfit

PIECE = 64
"""Groups submitted at once."""


class Upload:
    """One upload of groups to one batch."""

    def __init__(self, job: JobContext, record: BatchRecord) -> None:
        self._job = job
        self._record = record
        self._spec = job.spec_of(record)
        self._ordinal = record.progress.groups
        self._now: float | None = None
        self._codec: TextCodec | None = None
        self._waiting: list[GroupSpec] = []
        self._accepted = self._taken = 0
        self._sampling = job.sampling_of(self._spec)
        self._dumped = dump_sampling(self._sampling)

    async def take(self, group: Group) -> None:
        """Takes one more group. Raises InputError, ModelError, BusyProblem, BatchClosedError."""
        self._waiting.append(await self._render(group))
        self._taken += 1
        if len(self._waiting) >= PIECE:
            await self._submit()

    async def finish(self) -> UploadReceipt:
        """Submits what is left and counts all groups, accepted and present."""
        if self._waiting:
            await self._submit()
        return UploadReceipt(accepted=self._accepted, present=self._taken - self._accepted)

    async def _submit(self) -> None:
        job, piece = self._job, self._waiting
        load = await job.store.load()
        if sum(load.waiting.values()) + sum(spec.size for spec in piece) > job.limits.queued:
            raise BusyProblem(f"{job.limits.queued} requests wait already; send the upload again when some have ended")
        fleet_spec = (await job.snapshot()).fleet_spec
        if not takes_groups(fleet_spec, self._record.version):
            raise BusyProblem(f"new weights are coming: batch {self._record.number} takes groups again afterwards")
        self._waiting = []
        self._accepted += await job.store.submit(await with_earlier(job, piece))

    async def _render(self, group: Group) -> GroupSpec:
        job, spec = self._job, self._spec
        if self._now is None:
            self._now = await job.store.now()
        sampling = group.sampling or self._sampling
        await check_min_p(job, sampling, f"group {group.id}: sampling.minP")
        rendered = await self._tokens(group)
        problem = misfit(rendered, self._context(), sampling)
        if problem:
            raise InputError(f"group {group.id}: {problem}")
        size = group.n or spec.group_size or job.job.spec.group_size
        ordinal, self._ordinal = self._ordinal, self._ordinal + 1
        return job.placement.group(
            GroupId(self._record.number, group.id),
            self._record.version,
            ordinal,
            pack_tokens(rendered.token_ids),
            sampling.max_tokens,
            size,
            self._now,
            sampling=self._dumped if group.sampling is None else dump_sampling(sampling),
            metadata=group_metadata(group.metadata, template_hash=rendered.template_hash),
            batch_ordinal=self._record.ordinal,
            tier=TIERS[spec.priority] + (RESERVE if group.reserve else 0),
        )

    async def _tokens(self, group: Group) -> Rendered:
        if group.prompt_token_ids is not None:
            return Rendered(group.prompt_token_ids)
        if self._codec is None:
            self._codec = await self._job.codec()
        messages = tuple(group.messages) if group.messages is not None else None
        try:
            return self._codec.render(PromptLine(group.id, 0, group.prompt, messages))
        except ModelError as error:
            raise InputError(f"group {group.id}: {error}") from None

    def _context(self) -> int | None:
        codec = self._codec or self._job.known_codec()
        return codec.context_tokens if codec is not None else None

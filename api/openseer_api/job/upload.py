"""Uploads a trainer's groups: checks them, renders their prompts, places them by the policy, submits them in pieces."""

import asyncio
import json
from dataclasses import replace

from openseer_api.http.problems import BusyProblem, ConflictProblem
from openseer_api.job.context import JobContext
from openseer_api.job.history import with_earlier
from openseer_api.job.sampling import check_min_p, check_sampling
from openseer_core.admission import misfit
from openseer_core.errors import InputError, ModelError, NameTakenError
from openseer_core.ids import GroupId
from openseer_core.json_words import canonical
from openseer_core.manifest.prompts import PromptLine
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.batch import BatchRecord
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.placement import group_metadata
from openseer_core.queue.policy import RESERVE, TIERS
from openseer_core.tokens import pack_tokens
from openseer_core.weights.versions import takes_groups
from openseer_core.wire.batches import Group, UploadReceipt, metadata_problem
from openseer_text.rendering import Rendered, TextCodec

PIECE = 64
"""Limit of groups in one submission."""
PIECE_BYTES = 4 * 2**20
"""Approximate limit of the prompts in one submission, in bytes."""


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
        self._waiting_bytes = 0
        self._accepted = self._taken = 0
        self._sampling = job.sampling_of(self._spec)
        self._dumped = dump_sampling(self._sampling)

    async def take(self, group: Group) -> None:
        """Checks and renders one group, and submits the collected ones once they reach PIECE or PIECE_BYTES. Raises
        InputError, ModelError, BusyProblem, ConflictProblem, BatchClosedError, NameTakenError."""
        spec = await self._render(group)
        self._waiting.append(spec)
        self._waiting_bytes += len(spec.prompt)
        self._taken += 1
        if len(self._waiting) >= PIECE or self._waiting_bytes >= PIECE_BYTES:
            await self._submit()

    def counted(self, error: InputError) -> InputError:
        """Returns the error, with the number of groups that this upload has queued and that remain queued."""
        if self._accepted:
            error.args = (
                f"{error}; {self._accepted} groups of this call were queued before the error and remain queued",
            )
        return error

    async def finish(self) -> UploadReceipt:
        """Submits the remaining groups; returns the number of new groups, and of those that were present before. Raises
        BusyProblem, ConflictProblem, BatchClosedError, NameTakenError."""
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
            raise BusyProblem(
                f"new weights are being published: batch {self._record.number} takes groups again afterwards"
            )
        await self._check_version(piece)
        self._waiting, self._waiting_bytes = [], 0
        self._accepted += await self._queue(await with_earlier(job, piece))

    async def _check_version(self, piece: list[GroupSpec]) -> None:
        """Raises ConflictProblem for a new group if the batch was opened with a version and now has another one."""
        named = self._spec.weights_version
        if named is None:
            return
        record = await self._job.store.batch(self._record.number)
        if record is None or record.version == named:
            return
        there = await asyncio.gather(*(self._is_there(spec.id) for spec in piece))
        new = next((spec.id.name for spec, known in zip(piece, there, strict=True) if not known), None)
        if new is not None:
            raise ConflictProblem(
                f"batch {record.number} was opened for weights {named}, but the fleet now serves {record.version}: "
                f"group {new} is new and would be sampled from those; open another batch, or a batch without "
                "weights_version"
            )

    async def _is_there(self, group: GroupId) -> bool:
        try:
            await self._job.store.group_view(group)
        except KeyError:
            return False
        return True

    async def _queue(self, piece: list[GroupSpec]) -> int:
        """Submits groups and returns the number of new ones. Raises NameTakenError for a name with other content."""
        store = self._job.store
        try:
            new = await store.submit(piece)
        except NameTakenError as error:
            place = next(place for place, spec in enumerate(piece) if spec.id.name == error.name)
            there = await store.spec(piece[place].id)
            same = there is not None and there.metadata != piece[place].metadata and _same(there, piece[place])
            if there is None or not same:
                raise
            again = [*piece[:place], replace(piece[place], metadata=there.metadata), *piece[place + 1 :]]
            return await self._queue(again)
        if new < len(piece):
            views = await asyncio.gather(*(store.group_view(spec.id) for spec in piece))
            for spec, view in zip(piece, views, strict=True):
                if view.tier != spec.tier:  # a group's digest does not contain its tier
                    raise NameTakenError(spec.id.batch, spec.id.name)
        return new

    async def _render(self, group: Group) -> GroupSpec:
        job, spec = self._job, self._spec
        if self._now is None:
            self._now = await job.store.now()
        sampling = group.sampling or self._sampling
        whose = f"group {group.id}: "
        if group.sampling is not None:
            await check_sampling(job, group.sampling, whose)
        else:
            await check_min_p(job, sampling, f"{whose}sampling.minP")
        if wrong := metadata_problem(group.metadata):
            raise InputError(whose + wrong)
        rendered = await self._tokens(group)
        problem = misfit(rendered.token_ids, sampling, await job.limits_of_requests())
        if problem:
            raise InputError(f"group {group.id}: {problem}")
        size = group.n or spec.group_size or job.job.spec.group_size
        if sampling.score_from is not None and size > 1:
            raise InputError(
                f"group {group.id}: found {size} responses, allowed with sampling.scoreFrom: 1, because all would be "
                "the same; set group_size or n to 1"
            )
        ordinal, self._ordinal = self._ordinal, self._ordinal + 1
        return job.placement.group(
            GroupId(self._record.number, group.id),
            self._record.version,
            ordinal,
            pack_tokens(rendered.token_ids),
            sampling.most_added,
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


def _same(one: GroupSpec, other: GroupSpec) -> bool:
    """Whether the metadata of two groups are equal, apart from the order of keys."""
    return canonical(json.loads(one.metadata)) == canonical(json.loads(other.metadata))

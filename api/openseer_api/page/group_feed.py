"""Views of a group for one viewer: each contains the tokens of its responses since the previous view."""

import asyncio
from collections.abc import Awaitable, Callable

from openseer_api.http.problems import NotFoundProblem
from openseer_api.job.context import JobContext
from openseer_api.page.book import GroupBook
from openseer_api.page.group_views import Pieces, TokenTexts, response_view
from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.length_estimate import estimate
from openseer_core.tokens import unpack_tokens
from openseer_core.wire.page import MOST_SIBLINGS, GroupPage, ResponseView

MOST_PROMPT_TOKENS = 8192
"""Limit of tokens of a prompt that are shown."""
FindBook = Callable[[GroupId], Awaitable[GroupBook | None]]
NO_TEXT = "this server has not loaded the model's tokenizer (yet); token ids are shown"


async def no_book(_: GroupId) -> GroupBook | None:
    """Returns None, for a job without books."""
    return None


class GroupFeed:
    """The views of a group for one viewer. `index`: shows only this response, None: all; `place`: the id of the last
    event that the viewer received, from which the views continue."""

    def __init__(
        self, job: JobContext, group: GroupId, index: int | None, place: str = "", book: FindBook = no_book
    ) -> None:
        """`book`: finds the group's state that was computed from its batch's journal."""
        self._job, self._book = job, book
        self._group = group
        self._index = index
        self._prompt: tuple[str, int] | None = None
        self._place = place
        self._pieces: Pieces | None = None
        self._texts: dict[int, TokenTexts] = {}
        self._known: dict[int, str] = {}

    async def view(self) -> bytes:
        """Returns the next GroupPage as JSON. Raises NotFoundProblem, StoreUnavailableError."""
        store = self._job.store
        try:
            view, now = await asyncio.gather(store.group_view(self._group), store.now())
            indices = range(view.size) if self._index is None else [self._index]
            shown = list(indices)[:MOST_SIBLINGS]
            prompt, prompt_tokens = await self._prompt_text()
            responses = await self._responses(shown, view.enqueued_at)
        except KeyError:
            raise NotFoundProblem(f"there is no group {self._group}; its data may have been acknowledged") from None
        known = view.finished or view.longest_earlier
        page = GroupPage(
            now=now,
            batch=self._group.batch,
            name=self._group.name,
            prompt=prompt,
            prompt_tokens=prompt_tokens,
            max_tokens=view.max_tokens,
            estimate=estimate(view) if known else None,
            note="" if self._job.known_codec() is not None else NO_TEXT,
            responses=responses,
            left_out=len(indices) - len(shown),
        )
        return page.model_dump_json().encode()

    def place(self) -> str:
        """Returns the event id of the latest view; "" before the first one."""
        return self._pieces.place(self._texts) if self._pieces is not None else ""

    async def _responses(self, shown: list[int], queued_at: float) -> list[ResponseView]:
        pieces = self._pieces = self._pieces or Pieces(queued_at, self._place)
        known = await self._job.store.lengths([RequestId(self._group, index) for index in shown])
        lengths = dict(zip(shown, known, strict=True))
        most, book = pieces.share(lengths), await self._book(self._group)

        starts = {index: pieces.start(index, length) for index, length in lengths.items()}
        records = await asyncio.gather(
            *(self._job.store.record(RequestId(self._group, index), starts[index], most) for index in shown)
        )
        # Texts and positions advance only after all reads have succeeded, so a failed read leaves no gap.
        views: list[ResponseView] = []
        for index, record in zip(shown, records, strict=True):
            expected = book.expected.get(index) if book is not None else None
            view = response_view(record, starts[index], lengths[index], self._texts_of(index), expected)
            pieces.note(index, starts[index] + len(view.tokens))
            views.append(view)
        return views

    def _texts_of(self, index: int) -> TokenTexts | None:
        codec = self._job.known_codec()
        if codec is None or codec.read is None:
            return None
        if index not in self._texts:
            self._texts[index] = TokenTexts(codec.read, self._known)
        return self._texts[index]

    async def _prompt_text(self) -> tuple[str, int]:
        if self._prompt is None:
            spec = await self._job.store.spec(self._group)
            tokens = unpack_tokens(spec.prompt) if spec is not None else []
            codec = self._job.known_codec()
            shown = tokens[:MOST_PROMPT_TOKENS]
            text = codec.read.whole(shown) if codec is not None and codec.read is not None else ""
            self._prompt = text or " ".join(map(str, shown)), len(tokens)
        return self._prompt

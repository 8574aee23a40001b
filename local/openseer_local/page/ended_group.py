"""The view of one group of an ended run: its results, in pieces."""

import asyncio
from collections.abc import Mapping

from openseer_api.http.problems import NotFoundProblem
from openseer_api.page.book import BatchBook
from openseer_api.page.group_views import STATES, Pieces, TokenTexts
from openseer_core.ids import GroupId
from openseer_core.queue.states import State, Status
from openseer_core.wire.page import MOST_SIBLINGS, GroupPage, RequestWord, ResponseView
from openseer_core.wire.results import ChunkInfo
from openseer_driver.run_lines import ResultLine
from openseer_local.page.kept_results import KeptResults
from openseer_text.reading import Reader

RESPONSES: Mapping[str, RequestWord] = {
    Status.OK: STATES[State.DONE],
    Status.ABORTED: STATES[State.ABORTED],
    Status.CARRIED_OVER: STATES[State.CARRIED],
}
"""State of a response in the page, by the status of its result; any other status is shown as failed."""


class EndedGroup:
    """A group's results for one viewer. `index`: only this response, None: all, at most MOST_SIBLINGS.

    `books`: by number of the batch. `reader`: None shows token ids, for the reason `note`. `now`: end of the run in
    seconds of the job's clock. `place`: id of the viewer's last view, after which the next one continues.
    """

    def __init__(
        self,
        results: KeptResults,
        group: GroupId,
        index: int | None,
        books: Mapping[int, BatchBook],
        reader: Reader | None,
        now: float,
        place: str = "",
        note: str = "",
    ) -> None:
        indices = [one for one in results.indices(group) if index in (None, one)]
        self._results, self._indices = results, indices[:MOST_SIBLINGS]
        self._left_out = len(indices) - len(self._indices)
        self._lines: list[ResultLine] = []
        self._group, self._books, self._reader, self._now = group, books, reader, now
        self._place, self._note = place, note
        self._pieces: Pieces | None = None
        known: dict[int, str] = {}
        self._texts = {one: TokenTexts(reader, known) for one in self._indices} if reader is not None else {}

    async def view(self) -> bytes:
        """A GroupPage as JSON. Raises NotFoundProblem, or ConflictProblem if the results file has changed."""
        if not self._indices:
            raise NotFoundProblem(f"the run has no results of group {self._group}")
        if not self._lines:
            self._lines = await asyncio.to_thread(self._results.read, self._group, self._indices)
        lengths = {line.index: len(line.token_ids) for line in self._lines}
        book = self._books[self._group.batch].groups[self._group.name]
        pieces = self._pieces = self._pieces or Pieces(book.view.enqueued_at, self._place)
        most = pieces.share(lengths)
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
            note=self._note,
            responses=[self._response(line, pieces, most) for line in self._lines],
            left_out=self._left_out,
        )
        return page.model_dump_json().encode()

    def place(self) -> str:
        """The id of the latest view."""
        return self._pieces.place(self._texts) if self._pieces is not None else ""

    def _response(self, line: ResultLine, pieces: Pieces, most: int) -> ResponseView:
        start = pieces.start(line.index, len(line.token_ids))
        tokens = line.token_ids[start : start + most]
        end = start + len(tokens)
        pieces.note(line.index, end)
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
            expected=self._books[self._group.batch].groups[self._group.name].expected.get(line.index),
            start=start,
            tokens=tokens,
            text=texts.feed(tokens) if texts is not None else None,
            logprobs=line.logprobs[start:end] if line.logprobs is not None else None,
            chunks=chunks,
        )

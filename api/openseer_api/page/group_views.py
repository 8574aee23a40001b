"""A group as the page shows it: its responses side by side, each a piece that goes on where the last one ended."""

from collections.abc import Sequence

from openseer_api.http.rendering import chunk_infos
from openseer_core.ids import WorkerId
from openseer_core.queue.messages import RequestRecord
from openseer_core.queue.states import State
from openseer_core.token_scores import own_scores
from openseer_core.tokens import ITEM_BYTES, count_items, readable_logprobs, unpack_tokens
from openseer_core.wire.page import MOST_TOKENS, RequestWord, ResponseView
from openseer_text.reading import Reader

UNFINISHED = "\ufffd"
"""What a tokenizer writes for a character of which some bytes are missing."""
LONGEST_CHARACTER = 4
"""Tokens that one character may have, as bytes."""
STATES: dict[State, RequestWord] = {
    State.QUEUED: "waiting",
    State.LEASED: "running",
    State.DONE: "ok",
    State.ABORTED: "aborted",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.CARRIED: "carried",
}


class TokenTexts:
    """The text of each token of a response, special tokens written.

    A token mostly reads the same everywhere but at the begin, where some tokenizers leave a blank out, so it is read
    once, after itself. Of a character that several tokens make, the last one has it. `known`: shared by the responses
    of a viewer.
    """

    def __init__(self, reader: Reader, known: dict[int, str]) -> None:
        self._read = reader.whole
        self._known = known
        self._pending: list[int] = []

    def feed(self, tokens: Sequence[int]) -> list[str]:
        """The texts of the next tokens."""
        return [self._next(token) for token in tokens]

    def _next(self, token: int) -> str:
        if token not in self._known:
            once = self._read([token])
            self._known[token] = UNFINISHED if UNFINISHED in once else self._read([token, token])[len(once) :]
        text = self._known[token]
        if text != UNFINISHED and not self._pending:
            return text
        self._pending.append(token)
        text = self._read(self._pending)
        if text.endswith(UNFINISHED) and len(self._pending) < LONGEST_CHARACTER:
            return ""
        self._pending.clear()
        return text


def response_view(record: RequestRecord, start: int, texts: TokenTexts | None) -> ResponseView:
    """A response from token `start` on, at most MOST_TOKENS of it. `record`: read from there."""
    count = count_items(record.tokens)
    kept = min(count, MOST_TOKENS)
    tokens = unpack_tokens(record.tokens[: kept * ITEM_BYTES])
    logprobs = readable_logprobs(own_scores(record.tokens, record.logprobs))[:kept] if record.logprobs else None
    leased = record.state is State.LEASED
    return ResponseView(
        index=record.request.index,
        state=STATES[record.state],
        reason=record.reason,
        worker=WorkerId.parse(record.holder).name if leased and "#" in record.holder else "",
        turn=record.turn,
        length=start + count,
        start=start,
        tokens=tokens,
        text=texts.feed(tokens) if texts is not None else None,
        logprobs=logprobs,
        chunks=chunk_infos(record.chunks),
    )

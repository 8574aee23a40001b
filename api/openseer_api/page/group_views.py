"""The page's view of a group: its responses, each as a piece that continues the previous one."""

import re
from collections.abc import Mapping, Sequence

from openseer_api.http.rendering import chunk_infos
from openseer_core.ids import WorkerId
from openseer_core.queue.messages import RequestRecord
from openseer_core.queue.states import State
from openseer_core.token_scores import own_scores
from openseer_core.tokens import count_items, readable_logprobs, unpack_tokens
from openseer_core.wire.page import MOST_TOKENS, RequestWord, ResponseView
from openseer_text.reading import Reader

PLACE = re.compile(r"(\S{1,32})((?: \d{1,6}:\d{1,9})*)")
UNFINISHED = "\ufffd"
"""The character that a tokenizer returns for an incomplete one."""
LONGEST_CHARACTER = 4
"""Limit of tokens of one character: a UTF-8 character has at most four bytes."""
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
    """Decodes the tokens of a response one by one, special tokens included.

    The text of a token rarely depends on its position, except at the start of a text, where some tokenizers omit a
    space. So each token is decoded once, preceded by itself, and cached in `known`, which the responses of a viewer
    share. A character that consists of several tokens is the text of the last one.
    """

    def __init__(self, reader: Reader, known: dict[int, str]) -> None:
        self._read = reader.whole
        self._known = known
        self._pending: list[int] = []

    @property
    def pending(self) -> int:
        """Number of latest tokens that form an incomplete character."""
        return len(self._pending)

    def feed(self, tokens: Sequence[int]) -> list[str]:
        """Returns the texts of the next tokens."""
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


class Pieces:
    """The positions up to which the responses of a group were sent to a viewer.

    A viewer that reconnects sends the id of its last event (`Last-Event-ID`), and the stream continues after this
    event. `last_id`: this id. With the id of another group, or "", the stream starts from the beginning.
    """

    def __init__(self, queued_at: float, last_id: str = "") -> None:
        """`queued_at`: time at which the group was queued; it distinguishes groups of the same name."""
        self._of = repr(queued_at)
        found = PLACE.fullmatch(last_id)
        known = found[2].split() if found and found[1] == self._of else []
        self._sent = {int(index): int(sent) for index, _, sent in (one.partition(":") for one in known)}

    def start(self, index: int, length: int) -> int:
        """Returns the place of the first token that is to be sent of a response with `length` tokens."""
        return min(self._sent.get(index, 0), length)

    def share(self, lengths: Mapping[int, int]) -> int:
        """Returns the limit of tokens per response in a view. `lengths`: lengths of all responses, by index."""
        open_ends = sum(length > self.start(index, length) for index, length in lengths.items())
        return MOST_TOKENS // max(1, open_ends)

    def note(self, index: int, end: int) -> None:
        """Records that a response was sent up to token `end`."""
        self._sent[index] = end

    def place(self, texts: Mapping[int, TokenTexts]) -> str:
        """Returns the id of the latest event. After a reconnect, tokens of an incomplete character are sent again."""
        ends = {index: end - (texts[index].pending if index in texts else 0) for index, end in self._sent.items()}
        return " ".join([self._of, *(f"{index}:{max(0, end)}" for index, end in ends.items())])


def response_view(
    record: RequestRecord, start: int, length: int, texts: TokenTexts | None, expected: int | None
) -> ResponseView:
    """Returns the view of a response with `length` tokens. `record` contains its tokens from `start` on; `expected`:
    the estimate before its end, None if unknown."""
    count = count_items(record.tokens)
    tokens = unpack_tokens(record.tokens)
    logprobs = readable_logprobs(own_scores(record.tokens, record.logprobs)) if record.logprobs else None
    leased = record.state is State.LEASED
    return ResponseView(
        index=record.request.index,
        state=STATES[record.state],
        reason=record.reason,
        worker=WorkerId.parse(record.holder).name if leased and "#" in record.holder else "",
        turn=record.turn,
        length=max(length, start + count),
        expected=expected,
        start=start,
        tokens=tokens,
        text=texts.feed(tokens) if texts is not None else None,
        logprobs=logprobs,
        chunks=chunk_infos(record.chunks),
    )

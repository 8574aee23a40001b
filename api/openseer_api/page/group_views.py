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

CONTEXT = 8
"""Tokens that are read before a token whose text is wanted: a tokenizer may write it otherwise at the begin."""
UNFINISHED = "\ufffd"
"""What a tokenizer writes for a character of which some bytes are still missing."""
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


def response_view(record: RequestRecord, start: int, before: Sequence[int], reader: Reader | None) -> ResponseView:
    """A response from token `start` on, at most MOST_TOKENS of it. `record`: read from there; `before`: the last tokens
    of what came before, for the tokenizer."""
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
        text=pieces_of(reader, before, tokens) if reader is not None else None,
        logprobs=logprobs,
        chunks=chunk_infos(record.chunks),
    )


def pieces_of(reader: Reader, before: Sequence[int], tokens: Sequence[int]) -> list[str]:
    """The text of each token, special tokens written; of a character that several tokens make, the last one has it."""
    window, pieces = list(before[-CONTEXT:]), list[str]()
    sent = reader.whole(window)
    for token in tokens:
        window.append(token)
        text = reader.whole(window)
        is_cut = text.endswith(UNFINISHED) and len(text) - len(sent) <= LONGEST_CHARACTER
        pieces.append("" if is_cut and len(window) < 2 * CONTEXT + LONGEST_CHARACTER else text[len(sent) :])
        if not is_cut:
            sent = text
            if len(window) >= 2 * CONTEXT:
                window = window[-CONTEXT:]
                sent = reader.whole(window)
    return pieces

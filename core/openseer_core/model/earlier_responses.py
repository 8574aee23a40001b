"""The newest responses to each prompt, over all batches, in the reference model."""

from dataclasses import dataclass, field

from openseer_core.queue.siblings import EARLIER_SECONDS, EARLIER_TOKENS
from openseer_core.tokens import ITEM_BYTES


@dataclass(slots=True)
class _Kept:
    """The responses to one prompt, newest first, cut to EARLIER_TOKENS; their full lengths; and the time of expiry."""

    until: float = 0.0
    responses: list[bytes] = field(default_factory=list[bytes])
    lengths: list[int] = field(default_factory=list[int])


class EarlierResponses:
    """The newest responses to each prompt, over all batches."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def keep(self, digest: str, size: int, tokens: bytes, now: float) -> None:
        """Adds a complete response as the newest. The newest `size` responses are kept."""
        kept = self._of(digest, now)
        kept.responses = [_cut(tokens), *kept.responses][:size]
        kept.lengths = [len(tokens) // ITEM_BYTES, *kept.lengths][:size]
        kept.until = now + EARLIER_SECONDS
        self._kept[digest] = kept

    def take_back(self, digest: str, tokens: bytes, now: float) -> None:
        """Removes a response that was not complete: its request continues with another turn."""
        kept = self._of(digest, now)
        if _cut(tokens) in kept.responses:
            kept.responses.remove(_cut(tokens))
            kept.lengths.remove(len(tokens) // ITEM_BYTES)

    def responses(self, digest: str, now: float) -> tuple[bytes, ...]:
        """The stored responses to a prompt, newest first."""
        return tuple(self._of(digest, now).responses)

    def longest(self, digest: str, now: float) -> int:
        """The length, in tokens, of the longest stored response to a prompt; 0 if there is none."""
        return max(self._of(digest, now).lengths, default=0)

    def _of(self, digest: str, now: float) -> _Kept:
        kept = self._kept.get(digest)
        return kept if kept is not None and now < kept.until else _Kept()


def _cut(tokens: bytes) -> bytes:
    return tokens[: EARLIER_TOKENS * ITEM_BYTES]

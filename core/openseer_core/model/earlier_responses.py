"""The newest responses to each prompt, over batches, as the reference model keeps them."""

from dataclasses import dataclass, field

from openseer_core.queue.siblings import EARLIER_SECONDS, EARLIER_TOKENS
from openseer_core.tokens import ITEM_BYTES


@dataclass(slots=True)
class _Kept:
    """Of one prompt: responses (cut to EARLIER_TOKENS) and their whole lengths, newest first, and until when."""

    until: float = 0.0
    responses: list[bytes] = field(default_factory=list[bytes])
    lengths: list[int] = field(default_factory=list[int])


class EarlierResponses:
    """The newest responses to each prompt, over batches, as the reference queue keeps them."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def keep(self, digest: str, size: int, tokens: bytes, now: float) -> None:
        """Puts a whole response in front; `size` of them stay."""
        kept = self._of(digest, now)
        kept.responses = [_cut(tokens), *kept.responses][:size]
        kept.lengths = [len(tokens) // ITEM_BYTES, *kept.lengths][:size]
        kept.until = now + EARLIER_SECONDS
        self._kept[digest] = kept

    def take_back(self, digest: str, tokens: bytes, now: float) -> None:
        """The response goes on: it was not whole."""
        kept = self._of(digest, now)
        if _cut(tokens) in kept.responses:
            kept.responses.remove(_cut(tokens))
            kept.lengths.remove(len(tokens) // ITEM_BYTES)

    def responses(self, digest: str, now: float) -> tuple[bytes, ...]:
        """What is kept of a prompt, newest first."""
        return tuple(self._of(digest, now).responses)

    def longest(self, digest: str, now: float) -> int:
        """Tokens of the longest response to a prompt, 0 where none is kept."""
        return max(self._of(digest, now).lengths, default=0)

    def _of(self, digest: str, now: float) -> _Kept:
        kept = self._kept.get(digest)
        return kept if kept is not None and now < kept.until else _Kept()


def _cut(tokens: bytes) -> bytes:
    return tokens[: EARLIER_TOKENS * ITEM_BYTES]

"""Stop strings, checked by the worker itself: the same way in every engine, also when the response has moved."""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
"""Token ids → their text, special tokens left out."""

# What a decoder writes for bytes that are no character, or not yet one.
_UNFINISHED = "\ufffd"
# Tokens of context that a window keeps: more than any tokenizer looks back over.
_CONTEXT = 8
_WINDOW = 32


class StopChecker:
    """Follows the text of one response and says at which token a stop string completes.

    `earlier` are the response's tokens before this engine took it up: a string may begin in them. A string that
    completes before `min_tokens` tokens of the response does not count.
    """

    def __init__(self, decode: Decode, stops: Sequence[str], earlier: Sequence[int] = (), min_tokens: int = 0) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._min_tokens = min_tokens
        self._count = len(earlier)
        self._reach = max(len(stop) for stop in self._stops) - 1
        self._window, self._sent = _last_tokens(decode, earlier, self._reach)
        self._tail = self._keep(self._sent)

    def feed(self, tokens: Sequence[int]) -> tuple[int, str] | None:
        """Takes the next tokens. On a match: how many of them to keep, and the string that completed."""
        for position, token in enumerate(tokens):
            self._count += 1
            piece = self._next_text(token)
            if not piece:
                continue
            text = self._tail + piece
            if self._count >= self._min_tokens and (stop := self._first_match(text)):
                return position + 1, stop
            self._tail = self._keep(text)
        return None

    def _first_match(self, text: str) -> str | None:
        """The string that completes first in `text`; of those, the one that begins first."""
        before = len(self._tail)
        best: tuple[int, int, str] | None = None
        for stop in self._stops:
            at = text.find(stop, max(0, before - len(stop) + 1))
            if at >= 0:
                match = (at + len(stop), at, stop)
                best = match if best is None else min(best, match)
        return best[2] if best else None

    def _keep(self, text: str) -> str:
        return text[-self._reach :] if self._reach else ""

    def _next_text(self, token: int) -> str:
        self._window.append(token)
        text = self._decode(self._window)
        settled = text.rstrip(_UNFINISHED)
        piece = settled[len(self._sent) :]
        self._sent = settled if piece else self._sent
        if len(self._window) > _WINDOW and (settled == text or len(self._window) > 4 * _WINDOW):
            self._window = self._window[-_CONTEXT:]
            self._sent = self._decode(self._window).rstrip(_UNFINISHED)
        return piece


def _last_tokens(decode: Decode, tokens: Sequence[int], reach: int) -> tuple[list[int], str]:
    """The last of `tokens` and their text, at least `reach` characters of it where there are as many."""
    count = 4 * _WINDOW
    while True:
        window = list(tokens[-count:])
        text = decode(window).rstrip(_UNFINISHED) if window else ""
        # The first characters may be pieces of one that was cut.
        if count >= len(tokens) or len(text) >= reach + _CONTEXT:
            return window, text
        count *= 2


def visible_text(decode: Decode, tokens: Sequence[int], stop_reason: str, stops: Sequence[str]) -> str:
    """The text of a finished response, cut before the stop string that ended it, if one did."""
    text = decode(tokens)
    if stop_reason not in stops:
        return text
    # The string completed in the last token; an earlier one may stand before minTokens.
    before = len(decode(tokens[:-1]).rstrip(_UNFINISHED))
    at = text.find(stop_reason, max(0, before - len(stop_reason) + 1))
    return text if at < 0 else text[:at]

"""Finds stop strings in responses. Workers search themselves, so that results are the same for every engine, also after
a response has moved."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from openseer_text.reading import Decode, Reader

# The decoder's output for bytes that are not a complete character.
_UNFINISHED = "\ufffd"
# Number of tokens that stay in a shortened window: the text of a token depends on fewer tokens before it.
_CONTEXT = 8
# Number of tokens above which a window is shortened; four times as many while its last character is incomplete.
_WINDOW = 32


class StopChecker:
    """Searches the text of one response for stop strings, and reports the token at which one completes.

    A stop string with a special token is searched in the text with special tokens, every other stop string in the text
    without. `earlier`: the response's tokens before this engine continued it; a stop string may begin in them. A stop
    string that completes before the response has `min_tokens` tokens does not count.
    """

    def __init__(self, reader: Reader, stops: Sequence[str], earlier: Sequence[int] = (), min_tokens: int = 0) -> None:
        self._searches = [
            _Search(decode, of, reader.special_ids if decode is reader.text else frozenset(), earlier)
            for decode, of in _searches(reader, stops)
        ]
        self._min_tokens = min_tokens
        self._count = len(earlier)

    def feed(self, tokens: Sequence[int]) -> tuple[int, str] | None:
        """Adds the next tokens. On a match returns the number of them to keep, and the stop string; else None."""
        for position, token in enumerate(tokens):
            self._count += 1
            found = [search.take(token) for search in self._searches]
            if self._count >= self._min_tokens and (stop := next(filter(None, found), None)):
                return position + 1, stop
        return None


class _Search:
    """Searches for stop strings in one text of a response; tokens in `left_out` add nothing to this text."""

    def __init__(self, decode: Decode, stops: Sequence[str], left_out: frozenset[int], earlier: Sequence[int]) -> None:
        self._decode = decode
        self._stops = stops
        self._left_out = left_out
        self._reach = max(map(len, stops)) - 1
        read = [token for token in earlier if token not in left_out] if left_out else earlier
        self._window, self._sent = _last_tokens(decode, read, self._reach)
        self._tail = self._keep(self._sent)

    def take(self, token: int) -> str | None:
        """Adds the next token. Returns the stop string that the token completes, or None."""
        piece = "" if token in self._left_out else self._next_text(token)
        if not piece:
            return None
        text = self._tail + piece
        stop = self._first_match(text)
        self._tail = self._keep(text)
        return stop

    def _first_match(self, text: str) -> str | None:
        """The stop string that ends first in `text`; among several with the same end, the one that begins first."""
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
    """The last of `tokens` and their text, with at least `reach` characters if the whole text has as many."""
    count = 4 * _WINDOW
    while True:
        window = list(tokens[-count:])
        text = _settled(decode, window)
        # The first characters of the text may come from a character that the window cuts: _CONTEXT more are needed.
        if count >= len(tokens) or len(text) >= reach + _CONTEXT:
            return window, text
        count *= 2


@dataclass(frozen=True, slots=True)
class TextForm:
    """The form of a response's text. `special`: the text includes special tokens. `keep_stop`: the text includes the
    stop; only the part of the last token after a stop string is then cut."""

    special: bool = False
    keep_stop: bool = False

    def of(self, reader: Reader) -> Decode:
        """The decoder of this text."""
        return reader.whole if self.special else reader.text


USUAL_FORM = TextForm()


def visible_text(
    reader: Reader,
    tokens: Sequence[int],
    stop_reason: str,
    stops: Sequence[str],
    form: TextForm = USUAL_FORM,
) -> str:
    """The text of a finished response, cut before its stop: a stop string, or a token, special or not."""
    read = form.of(reader)
    if stop_reason in stops:
        searched = reader.whole if reader.names_special(stop_reason) else reader.text
        text = searched(tokens)
        # The stop string completed in the last token; an earlier occurrence may lie before minTokens.
        before = len(_settled(searched, tokens[:-1]))
        at = text.find(stop_reason, max(0, before - len(stop_reason) + 1))
        if at >= 0:
            return _translated(searched, read, tokens, at + len(stop_reason) if form.keep_stop else at)
    return read(tokens[:-1] if stop_token(tokens, stop_reason) is not None and not form.keep_stop else tokens)


def begun_text(reader: Reader, tokens: Sequence[int], stops: Sequence[str], form: TextForm = USUAL_FORM) -> str:
    """The text of a response that may continue. The text of the finished response will begin with this text.

    Leaves out the last token, which may end the response, and all characters that may belong to a stop string.
    """
    read, tokens = form.of(reader), tokens[:-1]
    begun = _settled(read, tokens)
    for searched, of in _searches(reader, stops):
        held = 0 if form.keep_stop else max(map(len, of)) - 1
        end = max(0, len(_settled(searched, tokens)) - held)
        begun = min(begun, _translated(searched, read, tokens, end), key=len)
    return begun


def stop_token(tokens: Sequence[int], stop_reason: str) -> int | None:
    """The token that ended a response; None if the response did not end by a token."""
    return tokens[-1] if tokens and stop_reason == str(tokens[-1]) else None


def _searches(reader: Reader, stops: Sequence[str]) -> list[tuple[Decode, list[str]]]:
    """The decoders of the texts to search, each with the stop strings to search for in its text."""
    whole = [stop for stop in stops if reader.names_special(stop)]
    plain = [stop for stop in stops if not reader.names_special(stop)]
    return [(decode, of) for decode, of in ((reader.whole, whole), (reader.text, plain)) if of]


def _translated(searched: Decode, read: Decode, tokens: Sequence[int], end: int) -> str:
    """The text by `read` of the part of a response whose text by `searched` is the first `end` characters."""
    if read is searched:
        return read(tokens)[:end]
    high, step = len(tokens), 1
    while (low := max(0, high - step)) and len(_settled(searched, tokens[:low])) > end:
        high, step = low, 2 * step
    counts = range(low, high + 1)
    place = bisect_right(counts, end, key=lambda count: len(_settled(searched, tokens[:count])))
    count = counts[max(0, place - 1)]
    before, beyond = read(tokens[:count]), len(searched(tokens[:count])) - end
    if beyond >= 0:
        # After the first `end` characters there are only unfinished characters, which both texts have.
        return before.rsplit(_UNFINISHED, beyond)[0]
    text, beyond = read(tokens[: count + 1]), len(searched(tokens[: count + 1])) - end
    return before if text == before else text[: max(len(before.rstrip(_UNFINISHED)), len(text) - beyond)]


def _settled(decode: Decode, tokens: Sequence[int]) -> str:
    """The text of tokens, without characters that the next token may still change."""
    return decode(tokens).rstrip(_UNFINISHED) if tokens else ""

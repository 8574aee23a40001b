"""Decodes token ids to text, with or without special tokens, identically in workers, driver and API."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

Decode = Callable[[Sequence[int]], str]
"""A function from token ids to their text."""


class Reader:
    """Decodes a tokenizer's tokens. `text`: without special tokens; `whole`: with them.

    `special`: the ids of special tokens by their text in `whole`. `end`: the token with which the model ends a
    response. Calling a reader calls `text`.
    """

    def __init__(
        self,
        text: Decode,
        whole: Decode | None = None,
        special: Mapping[str, int] | None = None,
        end: int | None = None,
    ) -> None:
        self.text = text
        self.whole = whole or text
        self.special = dict(special or {})
        self.end = end
        self.special_ids = frozenset(self.special.values())
        self._some_special = re.compile("|".join(map(re.escape, self.special))) if self.special else None

    def __call__(self, tokens: Sequence[int]) -> str:
        return self.text(tokens)

    @property
    def spaces_special(self) -> bool:
        """Whether `whole` puts spaces between successive special tokens."""
        return any(self.whole([number, number]) != 2 * word for word, number in [*self.special.items()][:1])

    def names_special(self, stop: str) -> bool:
        """Whether a stop string contains the text of a special token, so that it never occurs in `text`."""
        return self._some_special is not None and self._some_special.search(stop) is not None

    def stop_token_ids(self, stops: Iterable[str]) -> list[int]:
        """The ids of the stop strings that are a single special token."""
        return [self.special[stop] for stop in stops if stop in self.special]


def reader_of(tokenizer: Any) -> Reader:
    """The reader of a tokenizer. It does not apply the tokenizer's changes of spaces after decoding
    (`clean_up_tokenization_spaces`): engines do not either, and stop strings cannot be found in text that a later token
    changes."""
    core, end = getattr(tokenizer, "backend_tokenizer", None), tokenizer.eos_token_id
    if core is not None:
        added = core.get_added_tokens_decoder()
        special = {token.content: number for number, token in added.items() if token.special}
        if not _has_own_decode(tokenizer):
            return _reader(core.decode, special, end)
    else:
        words = [str(token) for token in tokenizer.all_special_tokens]
        special = dict(zip(words, cast("list[int]", tokenizer.all_special_ids), strict=True))
    if hasattr(tokenizer, "clean_up_tokenization"):

        def decode(tokens: list[int], *, skip_special_tokens: bool) -> str:
            return str(
                tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)
            )

        return _reader(decode, special, end)
    return _reader(tokenizer.decode, special, end)


def _has_own_decode(tokenizer: Any) -> bool:
    """Whether a tokenizer with a backend has a decoder of its own, as code of a model's authors may have."""
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - imported already, as a tokenizer exists

    own, usual = cast("tuple[Any, Any]", (type(tokenizer), PreTrainedTokenizerFast))
    return any(getattr(own, name, None) is not getattr(usual, name) for name in ("decode", "_decode"))


def _reader(decode: Callable[..., str], special: Mapping[str, int], end: int | None) -> Reader:
    return Reader(
        lambda tokens: decode(list(tokens), skip_special_tokens=True),
        lambda tokens: decode(list(tokens), skip_special_tokens=False),
        special,
        end,
    )

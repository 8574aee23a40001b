"""Reads JSON answers of the Kubernetes API of any nesting depth.

The API server stores objects of up to ten thousand nested levels; Python's `json` raises RecursionError at fewer than
a thousand. Without this module one such object makes a whole page of a LIST unreadable.
"""

import json
import re
from collections.abc import Callable
from typing import Any

DEEPEST = 256
"""Number of levels that are kept of an answer that `json` cannot read; maps and lists below them become null. The limit
of a manifest is far lower (openseer_core.manifest.parse.MOST_NESTED), so the parser refuses a manifest that is cut."""
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)

_SPACE = re.compile(r"[ \t\n\r]*")


def read_json(data: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError if the text is not JSON."""
    try:
        return json.loads(data)
    except RecursionError:
        return json.loads(_cut(data if isinstance(data, str) else data.decode()))


class DeepDecoder(json.JSONDecoder):
    """Python's decoder, extended to texts that are nested too deeply for it: levels below DEEPEST become null."""

    def decode(self, s: str, _w: Callable[..., Any] = _SPACE.match) -> Any:
        """The value of a JSON text."""
        try:
            return super().decode(s, _w)
        except RecursionError:
            return super().decode(_cut(s), _w)


def read_deep_json_everywhere() -> None:
    """Replaces the decoder of `json.loads` in this process, for libraries that decode answers of the API themselves."""
    setattr(json, "_default_decoder", DeepDecoder())  # noqa: B010


def _cut(text: str) -> str:
    """The text with null in place of every map and list that is deeper than DEEPEST."""
    kept: list[str] = []
    depth = begin = 0
    for token in _TOKEN.finditer(text):
        mark = text[token.start()]
        if mark in "[{":
            depth += 1
            if depth == DEEPEST + 1:
                kept += (text[begin : token.start()], "null")
        elif mark in "]}":
            if depth == DEEPEST + 1:
                begin = token.end()
            depth -= 1
    return "".join((*kept, text[begin:]))

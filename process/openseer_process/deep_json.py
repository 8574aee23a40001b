"""What the Kubernetes API answers, read so that no object in it can keep the others from being read.

The API server keeps objects that are nested ten thousand levels deep; the interpreter's reader gives up at less than a
thousand, and with that a whole page of a LIST.
"""

import json
import re
from collections.abc import Callable
from typing import Any

DEEPEST = 256
"""Levels that are kept of an answer that is nested too deeply to be read; what is below them becomes null. Far more
than a manifest may have (openseer_core.manifest.parse.MOST_NESTED), which so is refused all the same."""
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)

_SPACE = re.compile(r"[ \t\n\r]*")


def read_json(data: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError for what is no JSON."""
    try:
        return json.loads(data)
    except RecursionError:
        return json.loads(_cut(data if isinstance(data, str) else data.decode()))


class DeepDecoder(json.JSONDecoder):
    """The interpreter's own reader, but for what that gives up."""

    def decode(self, s: str, _w: Callable[..., Any] = _SPACE.match) -> Any:
        """The value of a JSON text."""
        try:
            return super().decode(s, _w)
        except RecursionError:
            return super().decode(_cut(s), _w)


def read_deep_json_everywhere() -> None:
    """Makes `json.loads` of this process read so: of libraries that read the API themselves too."""
    setattr(json, "_default_decoder", DeepDecoder())  # noqa: B010


def _cut(text: str) -> str:
    """With null in place of every map and list that is deeper than DEEPEST."""
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

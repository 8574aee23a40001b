"""Reads the YAML of a manifest as kubectl does, so that a file has the same meaning here and in a cluster.

kubectl parses words and numbers like sigs.k8s.io/yaml: YAML 1.1's `yes` and `017`, no base 60, no dates. Values that
kubectl would lose, change or treat in an undefined way are refused.
"""

import json
import re
from typing import Any, cast

import yaml

from openseer_core.errors import ManifestError
from openseer_core.strict_json import MOST_DEPTH, shown_name

MOST_VALUES = 100_000
"""Limit of values in one manifest; values that an alias repeats count each time."""
MOST_PROBLEMS = 20
"""Limit of problems in one error message."""

_STR, _SEQ, _MAP = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))
_PLAIN = "plain"
_MERGE = "<<"
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"], True),
    **dict.fromkeys(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"], False),
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
}
_NOT_FINITE = re.compile(r"\.(nan|NaN|NAN)|[-+]?\.(inf|Inf|INF)")
_WHOLE = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_BASES = (16, 2, 8, 10)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INT64_END = 2**63


def read_yaml(text: str, source: str) -> Any:
    """The JSON value of one YAML document. `source`: its name in messages. Raises ManifestError."""
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ManifestError(source, [f"not one YAML document: {_where(error)}"]) from error
    except RecursionError:
        raise ManifestError(source, [_TOO_DEEP]) from None
    except (ValueError, OverflowError) as error:
        reason = "an escape or a directive has a number out of range"
        raise ManifestError(source, [f"not one YAML document: {reason}"]) from error
    reading = _Reading()
    value = None if root is None else reading.value(root, "", 0)
    if reading.problems:
        more = len(reading.problems) - MOST_PROBLEMS
        raise ManifestError(source, reading.problems[:MOST_PROBLEMS] + ([f"… and {more} more"] if more > 0 else []))
    return value


def _where(error: yaml.YAMLError) -> str:
    """The error's text, with line and column (from 1)."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    found = "" if error.problem_mark is None else f"{_place(error.problem_mark)}: "
    if error.context:
        found += error.context + (f" ({_place(error.context_mark)}), " if error.context_mark is not None else ", ")
    return found + (error.problem or "it cannot be read")


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def plain_value(text: str) -> str | int | float | bool | None:
    """Returns the value of a scalar without quotes. Raises ValueError for a number that JSON does not have or that
    Kubernetes would change; its text names the allowed values."""
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("a finite number")
    # A number that begins with a decimal point has no underscores.
    plain = text.replace("_", "") if text[0] in "+-0123456789" else text
    if whole := _WHOLE.fullmatch(plain):
        sign, *digits = whole.groups()
        given, base = next((given, base) for given, base in zip(digits, _BASES, strict=True) if given is not None)
        return _of_64_bits(int(sign + given, base) if len(given) <= _MOST_DIGITS else _INT64_END)
    if _FLOAT.fullmatch(plain) and plain[0] in "+-.0123456789":
        value = float(plain)
        if abs(value) == float("inf"):
            raise ValueError("a number that a double holds")
        # JSON has one kind of number: 8.0 is sent as 8.
        return int(value) if value.is_integer() and abs(value) < _INT64_END else value
    return text


_TOO_DEEP = f"nested too deeply, allowed: {MOST_DEPTH} lists and maps within one another"
_MOST_DIGITS = 64
"""Largest number of digits of a 64-bit integer, in base 2."""


def _of_64_bits(value: int) -> int:
    if not -_INT64_END <= value < _INT64_END:
        raise ValueError("a whole number of 64 bits")
    return value


class _Loader(yaml.BaseLoader):
    """Marks scalars without quotes and tag as _PLAIN: their values may be other than text. The tag `!` means text."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return cast("str", super().resolve(kind, value, implicit))  # pyright: ignore[reportUnknownMemberType]

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        event = cast("Any", self).peek_event()
        if event.tag == "!" and event.value != _MERGE:
            event.tag = _STR
        return super().compose_scalar_node(anchor)  # pyright: ignore[reportUnknownMemberType]


class _Reading:
    """One pass over a document, which collects its problems."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._values = 0

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:
        """Returns the JSON value of one node, None after a problem. `path`: the node's name in messages; `depth`:
        number of enclosing nodes."""
        self._values += 1
        if self._values > MOST_VALUES:
            # Reported once; further values are not read.
            if self._values == MOST_VALUES + 1:
                self._add(node, path, f"too many values, allowed: {MOST_VALUES}, and an alias repeats its own")
            return None
        if depth > MOST_DEPTH:
            self.problems.append(f"line {_line(node)}: {_TOO_DEEP}")
            return None
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self._map(node, path, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            entries = cast("list[yaml.Node]", node.value)
            return [self.value(entry, f"{path}[{index}]", depth + 1) for index, entry in enumerate(entries)]
        if isinstance(node, yaml.ScalarNode) and node.tag in (_PLAIN, _STR):
            return self._scalar(node, path)
        tag = shown_name(node.tag.replace("tag:yaml.org,2002:", "!!"))
        return self._add(node, path, f"found the tag {tag}, allowed: JSON's values, which have none")

    def _map(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        given: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, entry in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            is_merge = key_node.tag == _PLAIN and key_node.value == _MERGE
            key = _MERGE if is_merge else self._key(key_node, path)
            if key is None:
                continue
            place = f"{path}.{shown_name(key)}" if path else shown_name(key)
            if key in lines:
                self.problems.append(
                    f"{place}: found on line {lines[key]} and on line {_line(key_node)}, allowed: once"
                )
            elif is_merge and lines:
                self._add(key_node, place, "found after other keys, allowed: before them")
            elif is_merge:
                merged = self._merged(entry, place, depth + 1)
            else:
                given[key] = self.value(entry, place, depth + 1)
            lines.setdefault(key, _line(key_node))
        return {**merged, **given}

    def _merged(self, node: yaml.Node, path: str, depth: int) -> dict[str, Any]:
        """Returns the keys that `<<` adds, from one map or several; the first map with a key takes precedence."""
        value = self.value(node, path, depth)
        parts = cast("list[Any]", value) if isinstance(value, list) else [value]
        result: dict[str, Any] = {}
        for part in parts:
            if isinstance(part, dict):
                result = {**cast("dict[str, Any]", part), **result}
            else:
                self._add(node, path, "found something else, allowed: a map, or a list of maps")
        return result

    def _key(self, node: yaml.Node, path: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode) or node.tag not in (_PLAIN, _STR):
            return self._add(node, path, "found a list, a map or a tag as a key, allowed: text")
        before = len(self.problems)
        key = self._scalar(node, f"{path}: a key" if path else "a key")
        if isinstance(key, str):
            return key
        if len(self.problems) == before:
            found = f"found {shown_name(str(node.value))} as a key, which YAML reads as {json.dumps(key)}"
            self._add(node, path, f"{found}, allowed: text; put it in quotes{_MEANT.get(node.value, '')}")
        return None

    def _scalar(self, node: yaml.ScalarNode, path: str) -> str | int | float | bool | None:
        text = cast("str", node.value)
        if node.tag == _PLAIN:
            try:
                value = plain_value(text)
            except ValueError as error:
                return self._add(node, path, f"found {shown_name(text)}, allowed: {error}")
            if not isinstance(value, str):
                return value
        try:
            # JSON, which is valid YAML, writes a character beyond 16 bits as two escapes.
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            return self._add(node, path, "not valid text (half of a character)")
        if "\0" in text:
            return self._add(node, path, "not valid text (the character 0, which no path, name or argument can hold)")
        return text

    def _add(self, node: yaml.Node, path: str, problem: str) -> None:
        self.problems.append(f"{path or 'the document'} (line {_line(node)}): {problem}")


_MEANT = {"n": ", or write spec.groupSize for the number of responses to a prompt"}
"""Hints for keys without quotes that are not text in YAML 1.1, such as `n` (false)."""


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1

"""Detects the format of a prompt file by its first bytes; for an unreadable file, makes a message with a remedy."""

import re
from typing import Literal

FileFormat = Literal["lines", "gzip", "parquet", "arrow stream", "arrow file"]

HEAD_BYTES = 4096
"""Number of bytes at the beginning of a file that are inspected."""
BOM = b"\xef\xbb\xbf"
"""The byte order mark that some programs write before UTF-8 text."""
ALLOWED = "JSON lines (plain or gzip), Parquet, or the folder of a dataset"


class RowsError(ValueError):
    """A file, or the rest of a file, cannot be read."""


_READABLE: tuple[tuple[bytes, FileFormat], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"PAR1", "parquet"),
    (b"ARROW1\0\0", "arrow file"),
    (b"\xff\xff\xff\xff", "arrow stream"),
)
_UNPACK = "unpack it, or compress it with gzip"
_TO_UTF8 = "convert it: iconv -f {} -t UTF-8 FILE > FILE.utf8"
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xfe\0\0", "UTF-32 text", _TO_UTF8.format("UTF-32")),
    (b"\0\0\xfe\xff", "UTF-32 text", _TO_UTF8.format("UTF-32")),
    (b"\xff\xfe", "UTF-16 text", _TO_UTF8.format("UTF-16")),
    (b"\xfe\xff", "UTF-16 text", _TO_UTF8.format("UTF-16")),
    (b"PK\x03\x04", "a zip archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "zstd data", _UNPACK),
    (b"BZh", "bzip2 data", _UNPACK),
    (b"\xfd7zXZ\0", "xz data", _UNPACK),
    (b"SQLite format 3\0", "an SQLite database", "export its rows as JSON lines"),
    (b"version https://git-lfs.github.com/", "a Git LFS pointer in place of the file", "run git lfs pull"),
)
_HTML = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)
_UTF16 = ((re.compile(rb"[{\[]\0[^\0]\0"), "UTF-16LE"), (re.compile(rb"\0[{\[]\0[^\0]"), "UTF-16BE"))
_SEPARATOR = re.compile(rb"[,;\t|]")


def format_of(head: bytes) -> FileFormat:
    """The format of a file that begins with `head`; "lines" if no other format is found."""
    for magic, file_format in _READABLE:
        if head.startswith(magic):
            return file_format
    return "lines"


def foreign(head: bytes) -> str | None:
    """The message for an unreadable file that begins with `head`; None for JSON lines and for an empty file."""
    for magic, kind, cure in _FOREIGN:
        if head.startswith(magic):
            return _refusal(kind, cure)
    for pattern, encoding in _UTF16:
        if pattern.match(head):
            return _refusal("UTF-16 text", _TO_UTF8.format(encoding))
    if b"\0" in head:
        return _refusal(f"binary data (first bytes {head[:4].hex(' ')})", "give the prompts in one of these")
    if _HTML.match(head):
        return _refusal("an HTML page", "give the address of the file itself (on the hub /resolve/, not /blob/)")
    return _foreign_text(head)


def _foreign_text(head: bytes) -> str | None:
    lines = [line.strip() for line in head.removeprefix(BOM).split(b"\n")]
    lines = [line for line in lines if line]
    if not lines:
        return None
    first = lines[0]
    if first == b"[" or first.startswith(b"[{"):
        return _refusal("a JSON array", "write its entries a line each: jq -c '.[]' FILE > FILE.jsonl")
    if first == b"{":
        return _refusal("a JSON document over several lines", "write a prompt a line: jq -c . FILE > FILE.jsonl")
    if any(line[:1] in (b"{", b"[") for line in lines):
        return None  # JSON lines, some of which may be invalid
    shown = _shown(first)
    if len(lines) > 1 and all(_SEPARATOR.search(line) for line in lines[:2]):
        cure = "convert it, such as with pandas.read_csv(FILE).to_json(NEW, orient='records', lines=True)"
        return _refusal(f"CSV with the columns {shown}", cure)
    return _refusal(f"text that begins with {shown}", 'write a JSON object a line, such as {"prompt": "…"}')


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace")
    return text if len(text) <= 60 else text[:59] + "…"


def _refusal(kind: str, cure: str) -> str:
    return f"found {kind}, allowed: {ALLOWED}; {cure}"

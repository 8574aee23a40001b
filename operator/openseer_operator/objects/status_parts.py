"""Reads parts of an object by name, and converts times to and from RFC 3339 text in UTC."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast


def entries(status: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The list of that name; empty if there is none."""
    return cast("list[Mapping[str, Any]]", status.get(name) or [])


def part(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object of that name; empty if there is none."""
    return cast("Mapping[str, Any]", status.get(name) or {})


def time_text(seconds: float | None) -> str | None:
    """Converts seconds since the epoch to RFC 3339 text; None to None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str | None) -> float | None:
    """Converts RFC 3339 text to seconds since the epoch; None, and a time that Python cannot parse (year 0), to
    None."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None

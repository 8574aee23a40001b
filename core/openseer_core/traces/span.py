"""A span, and the ids that it gets: hashes of what it is of, so that whoever tells of the same thing gives the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from openseer_core.traces.traceparent import TraceParent

Attribute = str | bool | int | float


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """What happened within a span, `at`: as of TraceSpan."""

    name: str
    at: float
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """Something that has ended. `start`, `end`: seconds of the job's clock; `parent_id`: 0 for none; `error`: why it
    failed, "" where it did not; `caller`: the span of a caller that all of it is below, None where no caller told one.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    start: float
    end: float
    attributes: Mapping[str, Attribute]
    events: tuple[SpanEvent, ...] = ()
    error: str = ""
    caller: TraceParent | None = None


def trace_id_of(*facts: object) -> int:
    """Of a trace that no caller began."""
    return _hash(16, facts)


def span_id_of(*facts: object) -> int:
    """Of a span."""
    return _hash(8, facts)


def _hash(size: int, facts: tuple[object, ...]) -> int:
    # Never 0, which means none.
    return int.from_bytes(blake2b("\0".join(map(str, facts)).encode(), digest_size=size).digest()) or 1

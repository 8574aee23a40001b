"""A span and its ids: hashes of the facts that identify it, so that every process gives it the same ids."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from openseer_core.traces.traceparent import TraceParent

Attribute = str | bool | int | float


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """An event within a span. `at`: seconds of the job's clock."""

    name: str
    at: float
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """An operation that has ended. `start`, `end`: seconds of the job's clock; `parent_id`: 0 for none; `error`: the
    reason of a failure, "" without one; `caller`: the caller's span above this one, None if it sent none.
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
    """The 16-byte id of a trace without a caller's span; never 0."""
    return _hash(16, facts)


def span_id_of(*facts: object) -> int:
    """The 8-byte id of a span; never 0."""
    return _hash(8, facts)


def _hash(size: int, facts: tuple[object, ...]) -> int:
    # An id of 0 means none.
    return int.from_bytes(blake2b("\0".join(map(str, facts)).encode(), digest_size=size).digest()) or 1

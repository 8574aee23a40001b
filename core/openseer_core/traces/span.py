"""A span and its ids. Ids are hashes of facts that identify the span, so that all processes compute the same ids."""

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
    """A span of an operation that has ended. `start`, `end`: seconds of the job's clock; `parent_id`: 0 for none;
    `error`: the reason of a failure, "" without a failure; `caller`: the span that the caller sent, None without one.
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
    """The 16-byte id of a trace that no caller has begun; never 0."""
    return _hash(16, facts)


def span_id_of(*facts: object) -> int:
    """The 8-byte id of a span; never 0."""
    return _hash(8, facts)


def _hash(size: int, facts: tuple[object, ...]) -> int:
    # In OpenTelemetry an id of 0 means that there is none.
    return int.from_bytes(blake2b("\0".join(map(str, facts)).encode(), digest_size=size).digest()) or 1

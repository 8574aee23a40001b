"""Parses and renders a job's backlog and the state of its autoscaling, as parts of the status."""

from collections.abc import Mapping
from typing import Any

from openseer_core.plan.backlog import Backlog, ScalingState
from openseer_operator.objects.reading import JsonObject
from openseer_operator.objects.status_parts import seconds_of, time_text


def read_backlog(part: Mapping[str, Any]) -> Backlog:
    """Parses the status's `backlog`; a missing field becomes 0 (unknown)."""
    return Backlog(
        requests=int(part.get("requests", 0)),
        tokens=int(part.get("tokens", 0)),
        length=float(part.get("responseTokens", 0)),
        speed=float(part.get("workerTokensPerSecond", 0)),
        start_seconds=float(part.get("startSeconds", 0)),
        workers=int(part.get("workers", 0)),
    )


def backlog_part(backlog: Backlog) -> JsonObject:
    """Renders the status's `backlog`, without fields that are 0 (unknown)."""
    figures = {
        "responseTokens": round(backlog.length, 1),
        "workerTokensPerSecond": round(backlog.speed, 1),
        "startSeconds": round(backlog.start_seconds, 1),
    }
    counts = {"requests": backlog.requests, "tokens": backlog.tokens, "workers": backlog.workers}
    return counts | {name: value for name, value in figures.items() if value}


def read_scaling(part: Mapping[str, Any]) -> ScalingState:
    """Parses the status's `scaling`."""
    return ScalingState(seconds_of(part.get("idleSince")), seconds_of(part.get("lowerSince")), int(part.get("peak", 0)))


def scaling_part(scaling: ScalingState) -> JsonObject:
    """Renders the status's `scaling`; empty for an empty state."""
    state = {
        "idleSince": time_text(scaling.idle_since),
        "lowerSince": time_text(scaling.lower_since),
        "peak": scaling.peak or None,
    }
    return {name: value for name, value in state.items() if value is not None}

"""The operator's metrics: a page of /metrics as a `Reading`, and the difference of two readings."""

import os
import re
import time
from collections import Counter
from dataclasses import dataclass

from support.control_plane import Json

READS = ("GET", "LIST")


@dataclass(frozen=True)
class Reading:
    """The operator's own /metrics at one moment. `looks`, `waits`: cumulative counts by upper bound in seconds."""

    at: float
    looks: dict[float, float]
    waits: dict[float, float]
    calls: Counter[tuple[str, str]]
    refused: float
    failed: float
    leads: bool
    jobs: int
    queue: int


LINE = re.compile(r"^(openseer_(?:operator|reconcile)_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LOOKS, WAITS = "openseer_reconcile_seconds_bucket", "openseer_reconcile_wait_seconds_bucket"
LABEL = re.compile(r'(\w+)="([^"]*)"')


def read(text: str) -> Reading:
    """Reads the text of the page."""
    values: dict[str, float] = {}
    buckets: dict[str, dict[float, float]] = {LOOKS: {}, WAITS: {}}
    calls: Counter[tuple[str, str]] = Counter()
    refused = 0.0
    for name, raw, value in LINE.findall(text):
        labels = dict(LABEL.findall(raw))
        if name in buckets:
            buckets[name][float(labels["le"])] = float(value)
        elif name == "openseer_operator_api_calls_total":
            calls[labels["verb"], labels["kind"]] += int(float(value))
            refused += float(value) if not 200 <= int(labels["code"]) < 300 else 0.0
        else:
            values[name] = float(value)
    return Reading(
        time.monotonic(),
        buckets[LOOKS],
        buckets[WAITS],
        calls,
        refused,
        values["openseer_reconcile_errors_total"],
        values["openseer_operator_leader"] == 1,
        int(values["openseer_operator_jobs"]),
        int(values["openseer_operator_queue"]),
    )


def spread(before: dict[float, float], after: dict[float, float]) -> Json:
    """p50, p99 and an upper bound of the maximum from a histogram's growth, in seconds; linear within a bucket."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    total = counts[float("inf")]
    if not total:
        return {"count": 0}

    def quantile(share: float) -> float:
        low, below = 0.0, 0.0
        for bound, count in counts.items():
            if count >= share * total:
                inside = (share * total - below) / (count - below)
                return round(low + (bound - low) * inside, 4) if bound != float("inf") else low
            low, below = bound, count
        return low

    longest = next(bound for bound, count in counts.items() if count == total)
    return {
        "count": int(total),
        "p50_seconds": quantile(0.5),
        "p99_seconds": quantile(0.99),
        "longest_at_most_seconds": longest if longest != float("inf") else "more than the last bucket",
        "share_within_1_s": round(counts[1.0] / total, 5),
    }


def window(before: Reading, after: Reading, jobs: int) -> Json:
    """The difference of two readings of one process."""
    seconds = after.at - before.at
    calls = after.calls - before.calls
    verbs: Counter[str] = Counter()
    for (verb, _), count in calls.items():
        verbs[verb] += count
    writes = sum(count for verb, count in verbs.items() if verb not in READS)
    return {
        "seconds": round(seconds, 1),
        "looks": spread(before.looks, after.looks),
        "waits": spread(before.waits, after.waits),
        "looks_failed": int(after.failed - before.failed),
        "calls": {f"{verb} {kind}": count for (verb, kind), count in sorted(calls.items())},
        "calls_refused": int(after.refused - before.refused),
        "calls_per_job": {verb: round(count / jobs, 2) for verb, count in sorted(verbs.items())},
        "writes": writes,
        "writes_per_second": round(writes / seconds, 2),
        "writes_per_job_per_minute": round(60 * writes / seconds / jobs, 3),
        "load_average": round(os.getloadavg()[0], 1),
    }

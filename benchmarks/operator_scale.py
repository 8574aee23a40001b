"""What 1,000 jobs with 5,000 workers cost: the real operator against a real control plane, on nodes that kwok plays.

    python benchmarks/operator_scale.py               1,000 jobs of 5 workers, about 25 minutes
    python benchmarks/operator_scale.py --quick       50 jobs, about a minute

Needs the control plane's programs (`make cluster-tools`, `cluster/cluster.sh prepare`) or KUBEBUILDER_ASSETS. Real: etcd,
kube-apiserver, kube-controller-manager, kube-scheduler, one Redis for all jobs (spec.store.url) and the operator, a
process. Played: nodes and pods by kwok; by this benchmark the workers' heartbeats, claims and results in each job's
store. Every job is a batch as a user writes it: driver pod, five workers with a GPU each, a volume for its results.

In turn: the ramp (all jobs applied at once, until every pod is Ready and every job says so), the settling (each pod is
stamped busy, at the operator's limit of writes), the rest (jobs run and progress, nothing else happens), and a restart
of the operator. A look (reconcile) is one look at one job; how long a job waited for it is counted apart.
"""

import sys

# This folder last: its queue.py would stand in for the standard library's.
sys.path[:] = [entry for entry in sys.path if entry != __file__.rpartition("/")[0]] + [__file__.rpartition("/")[0]]

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import shlex
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from control_plane import Client, ControlPlane, Json, MissingProgramsError, client_of, free_port
from played_workers import BEAT_SECONDS, Key, PlayedWorkers

ROOT = Path(__file__).resolve().parent.parent
NAMESPACES = 10
JOBS_PER_NODE = 15
"""Their 75 workers have 80 GPUs, and with their drivers less than the 110 pods that a node takes."""
RAMP_SECONDS = 3600.0
"""Longest wait for the steady state."""
SETTLE_SECONDS = 1200.0
"""Longest wait until every pod is stamped."""
RESTART_SECONDS = 600.0
"""Longest wait until a new operator has looked at every job."""
POLL_SECONDS = 3.0
STARTED_SECONDS = 60.0
"""Longest start of the operator with no jobs there."""
TARGETS = {"looks_within_1_s": 0.99, "writes_per_job_per_minute": 1.0, "writes_per_second": 20.0}
READS = ("GET", "LIST")
RUNNING_POD = re.compile(r"^(\d+)/\1$")


# ---- what the operator says of itself


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


LINE = re.compile(r"^(openseer_(?:operator|reconcile|queue)_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


def read(text: str) -> Reading:
    """Of the page's text."""
    one: Counter[str] = Counter()
    buckets: dict[str, dict[float, float]] = {"reconcile": {}, "queue": {}}
    calls: Counter[tuple[str, str]] = Counter()
    refused = 0.0
    for name, raw, value in LINE.findall(text):
        labels = dict(LABEL.findall(raw))
        if name.endswith("_seconds_bucket"):
            buckets[name.split("_")[1]][float(labels["le"])] = float(value)
        elif name == "openseer_operator_api_calls_total":
            calls[labels["verb"], labels["kind"]] += int(float(value))
            refused += float(value) if not 200 <= int(labels["code"]) < 300 else 0.0
        else:
            one[name] = float(value)  # pyright: ignore[reportArgumentType]
    return Reading(
        time.monotonic(),
        buckets["reconcile"],
        buckets["queue"],
        calls,
        refused,
        one["openseer_reconcile_errors_total"],
        one["openseer_operator_leader"] == 1,
        int(one["openseer_operator_jobs"]),
        int(one["openseer_operator_queue"]),
    )


def spread(before: dict[float, float], after: dict[float, float]) -> Json:
    """p50, p99 and the bound of the longest, in seconds, from a histogram's growth; within a bucket, a straight line."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    total = counts[float("inf")]
    if not total:
        return {"count": 0}

    def quantile(share: float) -> float:
        low, below = 0.0, 0.0
        for bound, count in counts.items():
            if count >= share * total:
                inside = (share * total - below) / (count - below)
                return round(low + (min(bound, 2 * low) - low) * inside, 4)
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

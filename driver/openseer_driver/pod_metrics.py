"""Progress of a driver pod's run: a log line at intervals, and metrics for Prometheus."""

import logging
import time
from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from openseer_core.worker.heartbeat import WorkerState
from openseer_driver.report.pace import Pace
from openseer_driver.run_lines import SampleLine
from openseer_process.families import Families

log = logging.getLogger("openseer.driver")

LINE_SECONDS = 10.0
"""Least interval between two log lines, in seconds."""
COUNTED_STATES = (
    WorkerState.STARTING,
    WorkerState.IDLE,
    WorkerState.BUSY,
    WorkerState.DRAINING,
    WorkerState.SICK,
)
"""Values of the label `state` of openseer_workers. Followers send no heartbeats."""


class PodMetrics(Collector):
    """Logs the progress of a run and exports its latest sample. `collect` is called in other threads."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._logged_at = float("-inf")
        self._tokens = 0  # maximum so far: a restarted store may have fewer, and a counter must not decrease

    def take(self, sample: SampleLine) -> None:
        """Adds the newest sample; logs a line if LINE_SECONDS have passed since the last line."""
        now = time.monotonic()
        self._tokens = max(self._tokens, sample.tokens)
        self._pace.take(sample, now)
        if now - self._logged_at >= LINE_SECONDS:
            self._logged_at = now
            log.info("%s", ", ".join(self._pace.facts(workers=True)))

    def collect(self) -> Iterable[Metric]:
        """The metrics of the latest sample; none before the first one."""
        sample = self._pace.latest
        if sample is None:
            return ()
        families = Families()
        for state, count in (("waiting", sample.waiting), ("inflight", sample.inflight), ("closed", sample.closed)):
            families.add("openseer_requests", count, state=state)
        families.add("openseer_tokens_total", self._tokens)
        found = Counter(worker.state for worker in sample.workers.values())
        for state in COUNTED_STATES:
            families.add("openseer_workers", found[state], state=state)
        return families

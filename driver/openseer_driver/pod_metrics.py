"""What a driver pod reports while its run goes on: a log line now and then, and metrics for Prometheus."""

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
"""Time between two log lines."""
COUNTED_STATES = (
    WorkerState.STARTING,
    WorkerState.IDLE,
    WorkerState.BUSY,
    WorkerState.DRAINING,
    WorkerState.SICK,
)


class PodMetrics(Collector):
    """Takes the samples of the run. Prometheus asks for the latest one from threads of its own."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._logged_at = float("-inf")
        self._tokens = 0  # the most so far: a store may come back older, and a counter must not fall

    def take(self, sample: SampleLine) -> None:
        """The run as it stands now."""
        now = time.monotonic()
        self._tokens = max(self._tokens, sample.tokens)
        self._pace.take(sample, now)
        if now - self._logged_at >= LINE_SECONDS:
            self._logged_at = now
            log.info("%s", ", ".join(self._pace.facts(workers=True)))

    def collect(self) -> Iterable[Metric]:
        """Nothing before the first sample."""
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

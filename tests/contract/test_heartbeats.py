"""The fields of heartbeats, and the Prometheus metrics made of them, keep their names."""

from pathlib import Path

from prometheus_client.registry import Collector

from openseer_core.queue.messages import BatchProgress
from openseer_core.queue.store_memory import StoreMemory
from openseer_core.worker.draft_metrics import COUNTERS
from openseer_core.worker.heartbeat import WORKING_STATES, Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_driver.pod_metrics import COUNTED_STATES, PodMetrics
from openseer_driver.run_lines import SampleLine, WorkerSample
from openseer_operator.control.counters import JobCounters
from openseer_operator.control.metrics import JobMetrics, Metrics, OperatorState, StoreHealth
from openseer_worker.health import Health
from tests.contract.forms import beats
from tests.contract.forms.recorded import compare
from tests.contract.forms.scanning import keys_of_metrics


def told(collector: Collector) -> dict[str, list[str]]:
    """The kinds and names of samples, with their labels."""
    found: dict[str, set[str]] = {}
    for family in collector.collect():
        for sample in family.samples:
            found.setdefault(f"{family.type} {sample.name}", set()).update(sample.labels)
    return {name: sorted(labels) for name, labels in sorted(found.items())}


def test_heartbeats_keep_their_states_and_fields(tmp_path: Path) -> None:
    states, plain = beats.scripted_beats(tmp_path)
    passed, full = beats.full_beat(tmp_path)
    ill, sick = beats.full_beat(tmp_path, sick=True)
    report = plain["worker-0"].weights
    assert report is not None
    found = {
        "states": {"plain": states, "drained": passed, "sick": ill},
        "plain": beats.types_of(plain["worker-0"].metrics),
        "full": beats.types_of(full.metrics),
        "sick": beats.types_of(sick.metrics),
        "what the weights report says": sorted(report.model_dump(exclude_defaults=True)),
        "phases": sorted(report.seconds),
        "figures of all engines": keys_of_metrics("worker"),
        "counters of drafting": sorted(COUNTERS),
        "states that claim": sorted(WORKING_STATES),
        "states of a fleet": sorted(COUNTED_STATES),
    }
    compare("heartbeats", found)


def test_the_metrics_of_a_worker_keep_their_names_and_labels(tmp_path: Path) -> None:
    _, full = beats.full_beat(tmp_path)
    full.metrics["routes_lost_bytes"] = 1
    health = Health()
    health.serve(lambda: True, lambda: full)
    off = Health()
    off.serve(lambda: True, lambda: Heartbeat(WorkerState.IDLE, WorkerMetrics({"drafts": "off: why"})))
    compare("metrics_worker", {"drafts": told(health), "does not": told(off)})


def test_the_metrics_of_a_driver_keep_their_names_and_labels() -> None:
    metrics = PodMetrics()
    metrics.take(SampleLine(1.0, 1, 2, 3, 4, 5, {"worker-0": WorkerSample("busy")}))
    compare("metrics_driver", told(metrics))


def test_the_metrics_of_the_operator_keep_their_names_and_labels() -> None:
    board = OperatorState()
    workers: dict[str, int | str] = {"desired": 1, "current": 1, "ready": 1, "busy": 1}
    board.jobs[("lab", "job")] = JobMetrics(BatchProgress(requests=4, ok=2), workers, 1, 12.5, JobCounters("uid", 99))
    board.store = lambda _: StoreHealth(True, StoreMemory(1, 2))
    board.calls["GET", "Pod", 200] += 1
    metrics = Metrics(board)
    metrics.reconciled(0.1, 0.1, failed=True)
    compare("metrics_operator", told(metrics.registry))

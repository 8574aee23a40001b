"""A job's metrics as Prometheus reads them, gathered from the store at the moment of the scrape."""

import asyncio
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.job.drafting import fleet_counts
from openseer_core.wire.weights import to_wire

LABELS = ("namespace", "job")


class _Families(Collector):
    """Families that are ready."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def exposition(job: JobContext) -> bytes:
    """The job's metrics in Prometheus' text format."""
    snapshot, load, batches = await asyncio.gather(job.snapshot(), job.store.load(), job.store.batches())
    place = [job.job.namespace, job.job.name]
    families: list[Metric] = []

    def gauge(name: str, text: str, value: float) -> None:
        family = GaugeMetricFamily(f"openseer_api_{name}", text, labels=LABELS)
        family.add_metric(place, value)
        families.append(family)

    gauge("queue_depth", "Requests that wait.", sum(load.waiting.values()))
    gauge("running", "Requests that are leased.", load.running)
    gauge("batches", "Batches whose data are there.", len(batches))
    gauge("workers", "Workers that have said something.", len(snapshot.workers))
    gauge(
        "weights_publishing",
        "1 while new weights are being published.",
        float(snapshot.fleet_spec.active_transaction is not None),
    )
    gauge("weights_versions", "Versions published so far, the initial one included.", len(snapshot.fleet_spec.versions))
    gauge(
        "tokens", "Tokens generated in the batches that are there.", sum(record.progress.tokens for record in batches)
    )
    drafts = fleet_counts(snapshot.workers)
    gauge("drafted_tokens", "Tokens that the present workers have drafted.", drafts.drafted)
    gauge("accepted_tokens", "Of these, tokens that came true.", drafts.accepted)
    gauge("acceptance_length", "Tokens that a request gains in a step, on average.", drafts.acceptance_length or 1.0)
    for count in job.counts.items():
        family = CounterMetricFamily(f"openseer_api_{count[0]}", _TEXTS[count[0]], labels=LABELS)
        family.add_metric(place, count[1])
        families.append(family)
    families += _weights(snapshot, place)
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return await asyncio.to_thread(generate_latest, registry)


def _weights(snapshot: FleetSnapshot, place: list[str]) -> list[Metric]:
    """The latest transaction: what became of it, what its phases took, who has not confirmed the present one."""
    transaction = to_wire(snapshot.fleet_spec, snapshot.workers, snapshot.now).transaction
    if transaction is None:
        return []
    labels = (*LABELS, "version")
    phase = GaugeMetricFamily(
        "openseer_api_weights_transaction", "1 for the phase of the latest transaction.", labels=(*labels, "phase")
    )
    phase.add_metric([*place, transaction.version, transaction.phase], 1)
    seconds = GaugeMetricFamily(
        "openseer_api_weights_phase_seconds", "Time of each phase that is over.", labels=(*labels, "phase")
    )
    for name, value in transaction.seconds.items():
        seconds.add_metric([*place, transaction.version, name], value)
    waiting = GaugeMetricFamily("openseer_api_weights_waiting", "Workers that are waited for.", labels=labels)
    waiting.add_metric([*place, transaction.version], len(transaction.waiting_for))
    replaced = GaugeMetricFamily("openseer_api_weights_replaced", "Workers it goes on without.", labels=labels)
    replaced.add_metric([*place, transaction.version], len(transaction.replaced))
    return [phase, seconds, waiting, replaced]


_TEXTS = {
    "compatible_requests": "Requests that came through the compatible routes.",
    "compatible_grouped": "Of these, those that joined a group: named, or recognised by version and prompt.",
    "compatible_recognised": "Of these, those whose group was recognised without a name.",
}

"""Metrics for Prometheus: those of a job, read from its store at each scrape, and the gateway's counts of calls."""

import asyncio
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.job.drafting import fleet_counts
from openseer_core.wire.weights import to_wire
from openseer_process.families import Collected, Families


async def exposition(job: JobContext) -> bytes:
    """Returns the job's metrics in Prometheus' text format. Raises StoreUnavailableError."""
    snapshot, load, batches = await asyncio.gather(job.snapshot(), job.store.load(), job.store.batches())
    fleet_spec, drafts = snapshot.fleet_spec, fleet_counts(snapshot.workers)
    families = Families(namespace=job.job.namespace, job=job.job.name)
    families.add("openseer_api_queue_depth", sum(load.waiting.values()))
    families.add("openseer_api_running", load.running)
    families.add("openseer_api_batches", len(batches))
    families.add("openseer_api_workers", len(snapshot.workers))
    families.add("openseer_api_weights_publishing", float(fleet_spec.active_transaction is not None))
    families.add("openseer_api_weights_versions", len(fleet_spec.versions))
    families.add("openseer_api_tokens", sum(record.progress.own_tokens for record in batches))
    families.add("openseer_api_drafted_tokens", drafts.drafted)
    families.add("openseer_api_accepted_tokens", drafts.accepted)
    families.add("openseer_api_acceptance_length", drafts.acceptance_length or 1.0)
    _add_transaction(families, snapshot)
    _add_calls(families, job.calls, job.counts)
    registry = CollectorRegistry()
    registry.register(Collected(lambda: families))
    return await asyncio.to_thread(generate_latest, registry)


def calls_of(jobs: Iterable[JobContext], refused: Mapping[int, int]) -> Iterable[Metric]:
    """Returns the counts of calls of a process with many jobs.
    `refused`: failed calls that were admitted to no job, by status."""
    families = Families()
    _add_calls(families, refused, {}, namespace="", job="")
    for job in jobs:
        _add_calls(families, job.calls, job.counts, namespace=job.job.namespace, job=job.job.name)
    return families


def _add_calls(families: Families, calls: Mapping[int, int], counts: Mapping[str, int], **key: str) -> None:
    for code, count in sorted(dict(calls).items()):
        families.add("openseer_api_calls_total", count, code=str(code), **key)
    for name, count in counts.items():
        families.add(f"openseer_api_{name}_total", count, **key)


def _add_transaction(families: Families, snapshot: FleetSnapshot) -> None:
    """Adds the latest transaction: phase, seconds by phase, counts of unconfirmed and replaced workers."""
    transaction = to_wire(snapshot.fleet_spec, snapshot.workers, snapshot.now).transaction
    if transaction is None:
        return
    families.add("openseer_api_weights_transaction", 1, phase=transaction.phase)
    for name, value in transaction.seconds.items():
        families.add("openseer_api_weights_phase_seconds", value, phase=name)
    families.add("openseer_api_weights_waiting", len(transaction.waiting_for))
    families.add("openseer_api_weights_replaced", len(transaction.replaced))

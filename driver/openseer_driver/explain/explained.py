"""Makes the explanation of a run from its trace."""

from openseer_core.explain.counters import counted
from openseer_core.explain.findings import named
from openseer_core.explain.paces import paces
from openseer_core.explain.parts import PART_LABELS, PART_NAMES, PartName, classify, divide
from openseer_core.manifest.fleet import RolloutSpec
from openseer_driver.explain.evidence import Evidence
from openseer_driver.explain.explanation import BestTimes, Explanation, TimePart, WorkerExplanation
from openseer_driver.explain.findings import find
from openseer_driver.explain.presence import absences, clock_of, is_present, last_sample, stocked_at, witnesses
from openseer_driver.explain.real_time import in_real_time
from openseer_driver.explain.waiting import waiting_spans
from openseer_driver.report.report import PAUSES_RULE
from openseer_driver.report.trace import Trace

LEFT_OUT = 0.02
"""Fraction of the makespan; a note is added if the job's clock leaves out more than that."""


def explain(trace: Trace, best: BestTimes | None = None, no_best: str = "it was not computed") -> Explanation:
    """The explanation of a run, finished or not. `best`: None if unknown; `no_best` is then the reason."""
    by_the_job, trace = trace.end, in_real_time(trace)
    clock = clock_of(trace)
    end = max((clock.at(fact.finished_at) for fact in trace.facts), default=0.0)
    waiting = waiting_spans(trace, clock)
    submitted = max((clock.at(fact.enqueued_at) for fact in trace.facts), default=0.0)
    workers, last = witnesses(trace), last_sample(trace)
    by_worker: dict[str, dict[PartName, float]] = {}
    for name, witness in workers.items():
        leases = [(clock.at(chunk.claimed_at), clock.at(chunk.ended_at)) for chunk in witness.leases]
        away = absences(witness, clock, end, present=lambda boot, name=name: is_present(last, name, boot))
        times = {"stocked": clock.at(stocked_at(trace)), "submitted": submitted, "end": end}
        seconds = classify(leases, waiting, away, slots=witness.slots, **times)
        by_worker[name] = divide(seconds, counted(sample for _, sample in witness.samples))
    sums: dict[PartName, float] = {name: sum((parts[name] for parts in by_worker.values()), 0.0) for name in PART_NAMES}
    whole = end * len(by_worker)
    speeds = paces({name: [sample for _, sample in witness.samples] for name, witness in workers.items()})
    policy = trace.record.setting("rollout", "policy") or RolloutSpec().policy
    slots = max((witness.slots for witness in workers.values()), default=0)
    evidence = Evidence(whole, sums, by_worker, speeds, policy, slots, len(trace.facts), trace)
    unknown = _unknown(trace)
    return Explanation(
        run=trace.record.name,
        state=trace.record.state,
        policy=policy,
        startup_seconds=end - trace.end,
        unqueued_seconds=clock.at(stocked_at(trace)),
        makespan_seconds=trace.end,
        worker_seconds=whole,
        parts=[_part(name, None if name in unknown else sums[name], whole) for name in PART_NAMES],
        workers={
            name: WorkerExplanation(parts, speeds[name].tokens_per_second, speeds[name].ratio)
            for name, parts in by_worker.items()
        },
        findings=find(evidence, best),
        best=best,
        no_best="" if best is not None else no_best,
        notes=_notes(trace, unknown, by_the_job),
    )


def _part(name: PartName, seconds: float | None, whole: float) -> TimePart:
    share = None if seconds is None else seconds / whole if whole else 0.0
    return TimePart(name, PART_LABELS[name], seconds, share)


def _unknown(trace: Trace) -> set[PartName]:
    """The parts of workers' time that no worker has counted."""
    workers = [worker for sample in trace.samples for worker in sample.workers.values()]
    unknown: set[PartName] = set()
    if all(worker.seconds is None for worker in workers):
        unknown |= {"store", "weights"}
        if not any(worker.contexts.compute_seconds for worker in workers):
            unknown |= {"prefill", "recompute"}
    if not any(worker.slots for worker in workers):
        unknown |= {"decode_full"}
    return unknown


def _notes(trace: Trace, unknown: set[PartName], by_the_job: float) -> list[str]:
    notes: list[str] = []
    if trace.end - by_the_job > LEFT_OUT * trace.end:
        notes.append(
            f"the store did not answer for {trace.end - by_the_job:,.1f} s; the job's clock and the report's makespan "
            f"({by_the_job:,.1f} s) do not count that time"
        )
    if unknown & {"store", "weights"}:
        notes.append("the samples do not contain waits for the store and for weights: they count as idle or decoding")
    if unknown & {"prefill", "recompute"}:
        notes.append("the samples do not contain the time of computing contexts: it counts as decoding")
    if "decode_full" in unknown:
        notes.append("the samples do not contain the workers' slots: all decoding counts as with slots free")
    if unknown_boots := [name for name, witness in witnesses(trace).items() if not witness.has_boots]:
        notes.append(
            f"the samples do not contain when {named(unknown_boots)} restarted: they count as present meanwhile"
        )
    if trace.record.state != "complete":
        notes.append(f"the run is {trace.record.state}: only its finished requests are explained")
    if trace.clock.pauses:
        notes.append(f"the run was resumed{PAUSES_RULE}")
    return notes

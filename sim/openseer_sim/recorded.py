"""Reads recorded runs for simulations: their lengths in the order of their groups, and their measurements."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import msgspec

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.queue.states import Status
from openseer_core.wording import unreadable
from openseer_core.worker.heartbeat import WorkerState
from openseer_driver.recorded_job import recorded_job
from openseer_driver.report.report import Report, make_report
from openseer_driver.report.trace import Fact, Trace, natural, read_trace
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import SampleLine
from openseer_sim.work import GroupLengths

STEADY = 0.95
"""Least ratio of the mean to the largest number of workers: below it a simulation with the largest number does not
represent the run."""


class BatchLine(msgspec.Struct, frozen=True):
    """The used fields of a line of `openseer results`: a result of a turn, or the end of a group. `sampled`: spans of
    tokens that the model sampled."""

    kind: str
    batch: int
    group: str
    status: str = "ok"
    index: int = 0
    prompt_token_ids: list[int] = []
    sampled: list[tuple[int, int]] = []


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run folder: its job, its groups in the order of submission, its report and its samples. `workers`: the largest
    number at the same time; `steady`: whether nearly all of them were present all the time (see STEADY). `notes`:
    limitations of a simulation of the run."""

    folder: RunFolder
    job: RolloutJob
    workers: int
    groups: list[GroupLengths]
    report: Report
    samples: tuple[SampleLine, ...]
    notes: tuple[str, ...]
    steady: bool = True

    @property
    def partial(self) -> bool:
        """Whether lengths are missing or too short."""
        return bool(length_notes(self.report))


def read_run(folder: RunFolder) -> RecordedRun:
    """Reads a run. Raises InputError for a folder without a run, and if no response has tokens."""
    return run_of(folder, read_trace(folder))


def run_of(folder: RunFolder, trace: Trace) -> RecordedRun:
    """Makes a run from the trace of its folder. Raises InputError if no response has tokens."""
    groups = groups_of(trace)
    if not groups:
        raise InputError(f"{folder.path}: no response with tokens here: there are no lengths to simulate")
    job, notes = _job_of(folder, trace)
    report, fleet = make_report(trace), _fleet(trace)
    notes += _notes(report)
    if not fleet.is_steady:
        notes.append(
            f"the number of workers changed, {fleet.mean:.1f} in the mean: simulated with {fleet.most}, the most, all "
            "the time"
        )
    return RecordedRun(folder, job, fleet.most, groups, report, trace.samples, tuple(notes), fleet.is_steady)


def read_results(path: Path) -> tuple[list[GroupLengths], list[str]]:
    """Reads a file of `openseer results`. Returns its groups, and the reasons why their lengths may be incomplete. The
    last turn of each response counts. Raises InputError if no response has tokens."""
    groups: dict[tuple[int, str], dict[int, BatchLine]] = defaultdict(dict)
    decoder, number = msgspec.json.Decoder(BatchLine), 0
    try:
        with path.open("rb") as file:
            for line in file:
                number += 1
                if not line.endswith(b"\n"):
                    break  # the writer was killed within this line
                item = decoder.decode(line)
                if item.kind == "result" and item.sampled:
                    groups[item.batch, item.group][item.index] = item
    except OSError as error:
        raise InputError(f"{path}: {unreadable(error, Path.cwd)}") from error
    except msgspec.DecodeError as error:
        raise InputError(
            f"{path}, line {number}: not a line of `openseer results`: {error}; of a run pass its folder, with run.json"
        ) from error
    if not groups:
        raise InputError(f"{path}: no response with tokens here: there are no lengths to plan with")
    cut = sum(line.status != Status.OK for group in groups.values() for line in group.values())
    return [_of_lines([group[index] for index in sorted(group)]) for group in groups.values()], _cut_notes(cut)


def _of_lines(lines: list[BatchLine]) -> GroupLengths:
    lengths = (sum(end - start for start, end in line.sampled) for line in lines)
    return GroupLengths(max(1, len(lines[0].prompt_token_ids)), tuple(lengths))


def groups_of(trace: Trace) -> list[GroupLengths]:
    """The lengths of all groups, probes first, in the order of submission. Groups that were submitted at the same time
    are in the order of their names."""
    groups: dict[tuple[int, str], list[Fact]] = defaultdict(list)
    for fact in trace.facts:
        if fact.length:
            groups[fact.group_key].append(fact)
    order = sorted(groups, key=lambda key: (key[0], min(fact.enqueued_at for fact in groups[key]), natural(key[1])))
    return [_group(sorted(groups[key], key=lambda fact: fact.index)) for key in order]


def _group(facts: list[Fact]) -> GroupLengths:
    return GroupLengths(max(1, facts[0].prompt), tuple(fact.length for fact in facts))


class _Fleet(NamedTuple):
    """Number of workers present at the same time while requests ran: the largest, and the mean over samples."""

    most: int
    mean: float

    @property
    def is_steady(self) -> bool:
        return self.mean >= STEADY * self.most


def _fleet(trace: Trace) -> _Fleet:
    """Counts started workers in the samples; without samples, the workers that ran requests.

    The manifest is not used, because it has only the requested number.
    """
    last = max((fact.finished_at for fact in trace.facts), default=trace.clock.origin)
    counts = [
        sum(worker.state != WorkerState.STARTING for worker in sample.workers.values())
        for sample in trace.samples
        if trace.clock.origin <= sample.at <= last
    ]
    if not any(counts):
        return _Fleet(max(1, len(trace.worker_names)), max(1, len(trace.worker_names)))
    return _Fleet(max(counts), fmean(counts))


def _job_of(folder: RunFolder, trace: Trace) -> tuple[RolloutJob, list[str]]:
    """The job by job.json; without this file by run.json, which lacks fields that change no result: a note says so."""
    job, is_whole = recorded_job(folder, trace.record)
    if is_whole:
        return job, []
    return job, [f"{folder.job_file.name} is missing: quantum and limit of responses in flight are the defaults"]


def length_notes(report: Report) -> list[str]:
    """The reasons why the lengths of a run may be incomplete."""
    notes: list[str] = []
    if report.state != "complete":
        notes.append(f"the run is {report.state}: only its finished responses are known, and short ones finish first")
    return notes + _cut_notes(report.requests_total - report.requests_ok)


def _cut_notes(cut: int) -> list[str]:
    if not cut:
        return []
    return [
        f"{cut:,} responses did not end by themselves: they count with the tokens that they had, so that simulated "
        "times are too short"
    ]


def _notes(report: Report) -> list[str]:
    notes = length_notes(report)
    if report.sessions > 1:
        notes.append(f"the run was resumed {report.sessions - 1} times: the cost of that is not simulated")
    if report.reaps:
        notes.append(f"{report.reaps:,} leases were lost with their workers: the simulation loses no worker")
    return notes

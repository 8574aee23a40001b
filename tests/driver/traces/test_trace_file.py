"""The trace file of a run, by the rules of the Trace Event Format that Perfetto reads."""

import gzip
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openseer_core.errors import InputError, OutputError
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import SampleLine, Session, WorkerSample
from openseer_driver.traces.trace_file import write_trace
from tests.driver.sample_runs import SMALL, START, Shape, run_record, write_run

DIES = Shape(groups=12, workers=3, slots=8, killed=5.0)
Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with moves, in which a worker dies and boots again."""
    path = tmp_path_factory.mktemp("runs") / "dies"
    write_run(path, DIES)
    return RunFolder(path)


@pytest.fixture(scope="module")
def events(folder: RunFolder) -> Events:
    return written(folder)


def written(folder: RunFolder) -> Events:
    file = folder.path / "trace.json"
    write_trace(folder, file)
    return json.loads(file.read_text())["traceEvents"]


def slices(events: Events, category: str | None = "lease") -> Events:
    return [event for event in events if event["ph"] == "X" and event.get("cat") == category]


def test_every_lease_is_a_slice_of_its_worker(folder: RunFolder, events: Events) -> None:
    workers = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    shown = {(workers[one["pid"]], one["name"], one["args"]["from"]): one for one in slices(events)}
    expected = [
        (chunk.worker_name, f"{line.group}/{line.index}", chunk.start, chunk.claimed_at, chunk.ended_at)
        for line in folder.facts()
        for chunk in line.chunks
    ]
    assert len(shown) == len(expected) == len(slices(events))
    begin = min(line.timings.enqueued_at for line in folder.facts())
    for worker, name, start, claimed, ended in expected:
        one = shown[worker, name, start]
        assert one["ts"] == pytest.approx((claimed - begin) * 1e6, abs=1)
        assert one["dur"] == pytest.approx((ended - claimed) * 1e6, abs=2)


def test_slices_of_a_row_never_overlap(events: Events) -> None:
    rows: dict[tuple[int, int], Events] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            rows[event["pid"], event["tid"]].append(event)
    assert len(rows) > DIES.workers
    for row in rows.values():
        row.sort(key=lambda event: event["ts"])
        for before, after in pairwise(row):
            assert before["ts"] + before["dur"] <= after["ts"]


def test_every_row_has_a_name_and_a_number_of_its_own(events: Events) -> None:
    named = {event["tid"]: event["pid"] for event in events if event["name"] == "thread_name"}
    assert len(named) == sum(event["name"] == "thread_name" for event in events)
    assert all(named[event["tid"]] == event["pid"] for event in events if event["ph"] in "Xsf")


def test_a_worker_has_as_many_rows_as_it_ran_leases_at_once(events: Events) -> None:
    by_worker: dict[int, Events] = defaultdict(list)
    for one in slices(events):
        by_worker[one["pid"]].append(one)
    for leases in by_worker.values():
        changes = sorted((at, step) for one in leases for at, step in ((one["ts"], 1), (one["ts"] + one["dur"], -1)))
        most = count = 0
        for _, step in changes:
            count += step
            most = max(most, count)
        assert len({one["tid"] for one in leases}) == most


def test_each_move_is_an_arrow_between_two_leases_of_a_request(folder: RunFolder, events: Events) -> None:
    ends: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    for event in events:
        if event["ph"] in "sf":
            assert event["ph"] not in ends[event["id"]]
            ends[event["id"]][event["ph"]] = event
    moves = sum(
        before.worker_name != after.worker_name for line in folder.facts() for before, after in pairwise(line.chunks)
    )
    assert len(ends) == moves > 0
    for pair in ends.values():
        [before], [after] = ([one for one in slices(events) if _holds(one, pair[end])] for end in "sf")
        assert before["name"] == after["name"]
        assert before["args"]["lease"] + 1 == after["args"]["lease"]
        assert pair["f"]["bp"] == "e"


def _holds(one: dict[str, Any], arrow: dict[str, Any]) -> bool:
    same = (one["pid"], one["tid"]) == (arrow["pid"], arrow["tid"])
    return same and one["ts"] <= arrow["ts"] < one["ts"] + one["dur"]


def test_counters_are_those_of_the_samples(folder: RunFolder, events: Events) -> None:
    shown = [event["args"] for event in events if event["ph"] == "C" and event["name"] == "requests"]
    assert shown == [{"running": sample.inflight, "waiting": sample.waiting} for sample in folder.samples()]


def test_every_event_has_a_known_phase_and_a_time(events: Events) -> None:
    assert {event["ph"] for event in events} == {"M", "X", "C", "s", "f"}
    assert all(isinstance(event["ts"], int) and event["ts"] >= 0 for event in events if event["ph"] != "M")
    assert all(event["dur"] >= 1 for event in events if event["ph"] == "X")


def test_no_token_and_no_text_of_a_response_is_in_the_file(events: Events) -> None:
    assert {key for one in slices(events) for key in one["args"]} == {
        "batch", "group", "index", "lease", "tokens", "from", "ended by", "waited, s", "worker", "status",
        "finish reason",
    }  # fmt: skip


def test_phases_of_a_resumed_run_are_listed_around_its_pause(tmp_path: Path) -> None:
    simulation = write_run(tmp_path / "paused", SMALL)
    folder = RunFolder(tmp_path / "paused")
    record = run_record("paused", SMALL, simulation.now)
    sessions = [Session(START - 30, START + 3.0, 2), Session(START + 4.0, simulation.now, 2)]
    folder.write_run(msgspec.structs.replace(record, sessions=sessions))
    phases = sorted(slices(written(folder), None), key=lambda event: event["ts"])
    assert [phase["name"] for phase in phases] == ["run", "paused", "run", "tail"]


def test_stalls_of_a_worker_are_slices_with_their_cause(tmp_path: Path) -> None:
    write_run(tmp_path / "stalls", SMALL)
    folder = RunFolder(tmp_path / "stalls")
    states = ["busy", "busy", "sick", "sick", "busy", "draining"]
    silences = [0.0, 5.0, 0.0, 0.0, 0.0, 0.0]
    samples = [
        SampleLine(START + at, workers={"worker-0": WorkerSample(state, silent=silent)})
        for at, (state, silent) in enumerate(zip(states, silences, strict=True))
    ]
    folder.samples_file.write_bytes(b"".join(msgspec.json.encode(sample) + b"\n" for sample in samples))
    shown = [one for one in slices(written(folder), None) if one["pid"] == 2]
    assert [(one["name"], one["ts"], one["dur"]) for one in shown] == [
        ("silent", 0, 1_000_000),
        ("sick", 1_000_000, 2_000_000),
        ("draining", 4_000_000, 1_000_000),
    ]


def test_a_name_that_ends_in_gz_makes_a_compressed_file(folder: RunFolder, events: Events, tmp_path: Path) -> None:
    write_trace(folder, tmp_path / "trace.json.gz")
    with gzip.open(tmp_path / "trace.json.gz") as file:
        assert json.load(file)["traceEvents"] == events


def test_a_missing_run_and_an_unwritable_target_are_named(folder: RunFolder, tmp_path: Path) -> None:
    empty = RunFolder(tmp_path / "empty")
    empty.create()
    empty.write_run(run_record("empty", SMALL, START))
    with pytest.raises(InputError, match="no results in this folder"):
        write_trace(empty, tmp_path / "trace.json")
    with pytest.raises(OutputError, match=r"missing/trace\.json: cannot be written: No such file"):
        write_trace(folder, tmp_path / "missing" / "trace.json")

"""Planted causes of slow runs are found, by rule and by name; a healthy run has no findings."""

from math import inf
from pathlib import Path

import pytest

from openseer_core.explain.findings import Finding
from openseer_core.explain.parts import PartName
from openseer_driver.explain.explained import explain
from openseer_driver.explain.explanation import Explanation
from openseer_driver.report.trace import read_trace
from openseer_driver.run_folder import RunFolder
from tests.driver.explain.planted import STEP, StallingStore, document, drawn, worker_0_dies, write_planted


def explained(path: Path) -> Explanation:
    """The explanation of a run folder; asserts that its parts add up to the worker-seconds."""
    found = explain(read_trace(RunFolder(path)))
    assert sum(part.worker_seconds or 0.0 for part in found.parts) == pytest.approx(found.worker_seconds)
    return found


def the_one(found: Explanation) -> Finding:
    [finding] = found.findings
    return finding


def share(found: Explanation, name: PartName) -> float:
    [part] = [part for part in found.parts if part.name == name]
    assert part.share is not None
    return part.share


def test_a_healthy_run_has_no_finding(tmp_path: Path) -> None:
    write_planted(tmp_path, drawn())
    found = explained(tmp_path)
    assert found.findings == []
    assert share(found, "decode_full") > 0.9
    assert found.notes == []


def test_a_slowed_worker_is_named_with_its_pace(tmp_path: Path) -> None:
    write_planted(tmp_path, drawn(), steps=(STEP, 2.5 * STEP))
    finding = the_one(explained(tmp_path))
    assert (finding.cause, finding.subject) == ("slow_worker", "worker-1")
    assert finding.figure == pytest.approx((STEP + 0.002) / (2.5 * STEP + 0.002), rel=0.1)
    assert finding.says.startswith("worker-1 generates responses at 0.4")


def test_a_worker_that_hangs_from_its_first_step_is_named(tmp_path: Path) -> None:
    write_planted(tmp_path, drawn(), steps=(STEP, inf))
    finding = explained(tmp_path).findings[0]
    assert (finding.cause, finding.subject, finding.figure) == ("slow_worker", "worker-1", 0.0)
    assert finding.says.startswith("worker-1 generates no tokens")


def test_a_worker_slower_by_a_seventh_is_no_finding(tmp_path: Path) -> None:
    write_planted(tmp_path, drawn(seed=3), steps=(STEP, 1.15 * STEP))
    assert explained(tmp_path).findings == []


def test_a_tiny_kv_cache_is_named_with_the_slots_that_it_fills(tmp_path: Path) -> None:
    write_planted(tmp_path, drawn(), document(slots=16, kvBlocks=80))
    found = explained(tmp_path)
    finding = the_one(found)
    assert (finding.cause, finding.subject) == ("kv", "kv")
    assert 1 / 16 < finding.figure < 6 / 16
    assert share(found, "decode_below_waiting") > 0.9


def test_a_giant_response_is_named_with_its_group_and_share(tmp_path: Path) -> None:
    lengths = drawn()
    lengths[5][2] = 6_000
    write_planted(tmp_path, lengths)
    found = explained(tmp_path)
    finding = the_one(found)
    assert (finding.cause, finding.subject) == ("giant_request", "g5[2]")
    assert "response 2 of group g5 has 6,000 tokens" in finding.says
    assert finding.figure == pytest.approx(2 * share(found, "tail"), abs=0.02)


def test_a_stalling_store_is_named_with_its_cost(tmp_path: Path) -> None:
    write_planted(tmp_path, drawn(), store=StallingStore)
    found = explained(tmp_path)
    finding = the_one(found)
    assert (finding.cause, finding.subject) == ("store", "store")
    assert 0.1 < finding.figure == pytest.approx(share(found, "store"), abs=1e-4)


def test_a_dead_worker_is_named_with_its_time_of_absence(tmp_path: Path) -> None:
    write_planted(tmp_path, drawn(), story=worker_0_dies)
    found = explained(tmp_path)
    finding = the_one(found)
    assert (finding.cause, finding.subject) == ("lost", "worker-0")
    assert finding.worker_seconds == pytest.approx(8.0, abs=1.5)
    assert found.workers["worker-1"].parts["lost"] == 0


def test_a_run_without_samples_lists_the_unknown_parts(tmp_path: Path) -> None:
    folder = write_planted(tmp_path, drawn(4))
    folder.samples_file.unlink()
    found = explained(tmp_path)
    unknown = {part.name for part in found.parts if part.worker_seconds is None}
    assert unknown == {"store", "weights", "prefill", "recompute", "decode_full"}
    assert len(found.notes) == 3
    assert {worker.pace_ratio for worker in found.workers.values()} == {None}

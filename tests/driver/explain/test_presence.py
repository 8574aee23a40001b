"""Presence of workers: boots, deaths and pauses are distinguished by heartbeats and leases."""

from openseer_core.explain.parts import Absence
from openseer_driver.explain.presence import Seen, Witness, absences
from openseer_driver.report.trace import ActiveClock
from openseer_driver.run_lines import ChunkLine, WorkerSample

CLOCK = ActiveClock(100.0)


def heard(*signs: tuple[float, str, float]) -> list[Seen]:
    """Samples of a worker: time, boot, and seconds since its last heartbeat."""
    return [Seen(at, WorkerSample("busy", boot=boot, silent=silent)) for at, boot, silent in signs]


def lease(boot: str, claimed: float, ended: float, event: str = "complete") -> ChunkLine:
    return ChunkLine(f"worker-0#{boot}", 1, 0, 1, claimed, ended, event)


def away(witness: Witness, last: str = "", clock: ActiveClock = CLOCK) -> list[Absence]:
    """Absences in a run of 50 seconds at whose end boot `last` was present."""
    return absences(witness, clock, 50.0, present=lambda boot: boot == last)


def test_a_worker_is_absent_before_its_first_and_after_its_last_heartbeat() -> None:
    assert away(Witness(heard((110.0, "a", 0.5), (120.0, "a", 0.5))), "a") == [Absence(0.0, 9.5, "boot")]
    left = away(Witness(heard((100.0, "a", 0.0), (120.0, "a", 0.5), (125.0, "a", 5.5))))
    assert left == [Absence(19.5, 50.0, "lost")]


def test_between_two_boots_a_worker_was_lost() -> None:
    witness = Witness(heard((100.0, "a", 0.0), (115.0, "a", 5.0), (130.0, "b", 0.0)), [lease("a", 101.0, 111.0)])
    assert away(witness, "b") == [Absence(11.0, 30.0, "lost")]


def test_a_reaped_lease_is_no_sign_of_life() -> None:
    leases = [lease("a", 100.0, 104.0), lease("a", 105.0, 120.0, "reap"), lease("b", 130.0, 149.0)]
    assert away(Witness([], leases), "b") == [Absence(5.0, 30.0, "lost")]


def test_a_silence_of_one_boot_is_no_absence() -> None:
    assert away(Witness(heard((100.0, "a", 0.0), (118.0, "a", 8.0), (130.0, "a", 0.0))), "a") == []


def test_after_a_pause_between_sessions_workers_boot() -> None:
    clock = ActiveClock(100.0, ((120.0, 200.0),))
    witness = Witness(heard((100.0, "a", 0.0), (120.0, "a", 0.0), (205.0, "b", 0.0)))
    assert away(witness, "b", clock) == [Absence(20.0, 25.0, "boot")]


def test_boots_that_samples_do_not_name_count_as_one() -> None:
    witness = Witness(heard((100.0, "", 0.0), (140.0, "", 0.0)), [lease("a", 101.0, 104.0), lease("b", 120.0, 130.0)])
    assert away(witness, "") == []
    assert not witness.has_boots
    assert Witness(witness.samples, witness.leases[:1]).has_boots

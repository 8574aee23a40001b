"""A worker's seconds by use: idle, busy, waiting for the store, new weights."""

from openseer_core.worker.time_metrics import WorkerSeconds
from openseer_worker.hardware.usage import Doing, TimeSpent, Usage


def test_an_interval_counts_by_its_initial_state() -> None:
    usage = Usage()
    usage.note(10.0, running=0, asleep=False)
    usage.note(13.0, running=2, asleep=False)
    usage.note(14.5, running=0, asleep=True)
    usage.note(99.0, running=0, asleep=False)
    usage.note(100.0, running=1, asleep=False)
    assert (usage.idle, usage.busy) == (4.0, 1.5)


def test_store_waits_count_only_while_the_engine_has_room() -> None:
    spent = TimeSpent()
    busy = Doing(running=2, slots=4, calls=False, wants=True, changes=False)
    spent.note(0.0, busy)
    spent.note(1.0, busy._replace(calls=True))
    spent.note(3.0, busy._replace(calls=True, running=4))
    spent.note(7.0, busy._replace(calls=True, running=0))
    spent.note(15.0, busy._replace(calls=True, running=0, wants=False))
    spent.note(31.0, busy._replace(calls=True, running=0, changes=True))
    spent.note(63.0, busy)
    counted = WorkerSeconds.of_heartbeat(spent.metrics())
    assert counted == WorkerSeconds(running=7.0, responses=22.0, store_idle=8.0, store_below=2.0, weights=32.0)


def test_missing_seconds_differ_from_zero_seconds() -> None:
    assert WorkerSeconds.of_heartbeat({"tokens": 5}) is None
    assert WorkerSeconds.of_heartbeat(TimeSpent().metrics()) == WorkerSeconds()

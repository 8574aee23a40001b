"""The time from which the silence of a worker counts."""

from openseer_core.weights.hearing import GAP_SECONDS, Hearing
from openseer_core.worker.heartbeat import FRESH_SECONDS, Heartbeat, WorkerState, WorkerStatus


def fresh(hearing: Hearing, seen_at: float, now: float) -> bool:
    """Whether a worker that was last seen at `seen_at` counts as working at `now`."""
    [worker] = hearing.heard([WorkerStatus("a", "boot", seen_at, 0, Heartbeat(WorkerState.IDLE))], now)
    return worker.works(now)


def test_silence_counts_from_the_first_answer_of_the_store() -> None:
    hearing = Hearing()
    hearing.answered(5.0, 1)
    assert fresh(hearing, 0.0, 1000.0)
    for second in range(int(FRESH_SECONDS) + 1):
        hearing.answered(5.0 + second, 1)
    assert fresh(hearing, 0.0, 1000.0 + FRESH_SECONDS)
    assert not fresh(hearing, 0.0, 1000.1 + FRESH_SECONDS)


def test_silence_counts_from_the_start_after_a_gap_or_a_new_epoch() -> None:
    hearing = Hearing()
    hearing.answered(0.0, 1)
    assert fresh(hearing, 0.0, 0.0)
    hearing.answered(GAP_SECONDS, 1)
    assert not fresh(hearing, 0.0, 60.0)
    hearing.answered(2.1 * GAP_SECONDS, 1)
    assert fresh(hearing, 0.0, 60.0)
    hearing.answered(2.2 * GAP_SECONDS, 2)
    assert fresh(hearing, 0.0, 120.0)

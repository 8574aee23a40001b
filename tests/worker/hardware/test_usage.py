"""Idle and busy seconds of a worker."""

from openseer_worker.hardware.usage import Usage


def test_an_interval_counts_as_the_state_at_its_begin() -> None:
    usage = Usage()
    usage.note(10.0, running=0, asleep=False)
    usage.note(13.0, running=2, asleep=False)
    usage.note(14.5, running=0, asleep=True)
    usage.note(99.0, running=0, asleep=False)
    usage.note(100.0, running=1, asleep=False)
    assert (usage.idle, usage.busy) == (4.0, 1.5)

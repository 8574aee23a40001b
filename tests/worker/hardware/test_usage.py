"""Idle and busy seconds of a worker."""

from openseer_worker.hardware.usage import Usage


def test_a_stretch_counts_as_what_it_was_when_it_began() -> None:
    usage = Usage()
    usage.note(10.0, held=0, asleep=False)
    usage.note(13.0, held=2, asleep=False)
    usage.note(14.5, held=0, asleep=True)
    usage.note(99.0, held=0, asleep=False)
    usage.note(100.0, held=1, asleep=False)
    assert (usage.idle, usage.busy) == (4.0, 1.5)

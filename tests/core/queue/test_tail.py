"""The begin of the tail: at most a tenth of the requests is unfinished."""

import pytest

from openseer_core.queue.batch import TAIL, tail_start


@pytest.mark.parametrize("count", range(1, 42))
def test_the_tail_begins_at_the_end_at_which_the_store_sets_tail_at(count: int) -> None:
    ends = [float(closed) for closed in range(1, count + 1)]

    assert tail_start(ends) == next(closed for closed in ends if TAIL * closed >= (TAIL - 1) * count)


def test_without_an_end_the_tail_begins_at_zero() -> None:
    assert tail_start([]) == 0

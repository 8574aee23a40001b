"""No number is issued twice: later epochs begin above earlier ones, even if the store has lost data."""

from hypothesis import given
from hypothesis import strategies as st

from openseer_core.numbers import EPOCHS_BEGIN, FIRST_BASE, NUMBERS_PER_MILLISECOND, base_of, issue, next_epoch

TWENTY_NINETY_FOUR = EPOCHS_BEGIN + 69 * 365 * 24 * 3600
walls = st.floats(EPOCHS_BEGIN + 1.0, TWENTY_NINETY_FOUR - 10.0)


def test_numbers_are_small_and_without_gaps_in_the_first_epoch() -> None:
    assert [issue(last, FIRST_BASE) for last in (0, 1, 2)] == [1, 2, 3]


@given(walls, st.floats(0.001, 10.0), st.floats(0.0, 1.0))
def test_an_epoch_begins_above_all_numbers_of_the_one_before(began: float, lasted: float, forgotten: float) -> None:
    epoch = next_epoch(0, began)
    issued = base_of(epoch) + int(lasted * 1000) * NUMBERS_PER_MILLISECOND
    later = next_epoch(int(epoch * forgotten), began + lasted + 0.002)  # a server takes longer to start
    assert issue(int(issued * forgotten), base_of(later)) > issued


@given(walls, st.integers(0, 2**40))
def test_a_known_epoch_is_never_issued_again(wall: float, known: int) -> None:
    assert next_epoch(known, wall) > known


@given(walls)
def test_numbers_are_exact_in_a_double(wall: float) -> None:
    number = issue(0, base_of(next_epoch(0, wall)))
    assert int(float(number)) == number < 2**53

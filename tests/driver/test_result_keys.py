"""A set of result keys behaves like Python's set under any sequence of operations."""

from hypothesis import given
from hypothesis import strategies as st

from openseer_driver.result_keys import ResultKeys
from openseer_driver.run_lines import ResultKey

KEYS = st.tuples(st.integers(0, 2), st.sampled_from(["", "a", "line-1", "ä"]), st.integers(0, 1023))
STEPS = st.lists(st.tuples(st.sampled_from(["update", "remove"]), st.lists(KEYS, max_size=6)), max_size=12)


@given(first=st.lists(KEYS, max_size=6), steps=STEPS, asked=st.lists(KEYS, max_size=6))
def test_it_behaves_like_a_set(
    first: list[ResultKey], steps: list[tuple[str, list[ResultKey]]], asked: list[ResultKey]
) -> None:
    keys, expected = ResultKeys(first), set(first)
    for step, entries in steps:
        if step == "update":
            keys.update(entries)
            expected.update(entries)
        else:
            keys.remove(entries)
            expected.difference_update(entries)
        assert len(keys) == len(expected)
        for key in [*expected, *entries, *asked]:
            assert (key in keys) == (key in expected)

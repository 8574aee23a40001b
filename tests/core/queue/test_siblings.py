"""The part of several logs that fits into one answer, and the key under which responses to a prompt are stored."""

from hypothesis import given
from hypothesis import strategies as st

from openseer_core.queue.siblings import prompt_digest, shares
from openseer_core.tokens import pack_tokens

needs = st.lists(st.integers(1, 50), max_size=12)


@given(needs, st.integers(0, 300))
def test_logs_share_all_the_room_there_is_and_no_more(wanted: list[int], room: int) -> None:
    given_ = shares(wanted, room)
    assert sum(given_) == min(sum(wanted), room)
    assert all(0 <= part <= need for part, need in zip(given_, wanted, strict=True))


@given(needs, st.integers(0, 300))
def test_a_log_that_is_cut_short_gets_as_much_as_any_other(wanted: list[int], room: int) -> None:
    given_ = shares(wanted, room)
    cut = [part for part, need in zip(given_, wanted, strict=True) if part < need]
    assert not cut or min(cut) >= max(given_) - 1


def test_short_logs_are_returned_whole() -> None:
    assert shares([40, 3, 50, 1], 24) == [10, 3, 10, 1]
    assert shares([], 5) == []


def test_equal_tokens_have_equal_digests_and_others_have_not() -> None:
    tokens, others = pack_tokens([1, 2, 3]), pack_tokens([1, 2, 3, 0])
    assert prompt_digest(tokens) == prompt_digest(bytes(tokens)) != prompt_digest(others)
    assert len(prompt_digest(b"")) == 32

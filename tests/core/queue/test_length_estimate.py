"""The estimate of a group's response lengths, and the condition under which a running response is reported."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from openseer_core.ids import GroupId
from openseer_core.queue.group import GroupView
from openseer_core.queue.length_estimate import FIRST_BOUND, STEP, estimate, is_news, longest_possible

FRESH = GroupView(GroupId(0, "a"), revision=0, ordinal=0, size=8, max_tokens=1000, enqueued_at=0.0)

views = st.builds(
    GroupView,
    id=st.just(GroupId(0, "a")),
    revision=st.integers(0, 9),
    ordinal=st.just(0),
    size=st.just(8),
    max_tokens=st.just(1000),
    enqueued_at=st.just(0.0),
    finished=st.integers(0, 7),
    longest_finished=st.integers(0, 1000),
    longest_running=st.integers(0, 1000),
    longest_earlier=st.integers(0, 1500),
)
lengths = st.integers(0, 1000)


def test_an_unknown_group_is_expected_to_be_as_long_as_allowed() -> None:
    assert estimate(FRESH) == 1000


def test_the_longest_finished_response_is_the_estimate() -> None:
    assert estimate(FRESH.with_finish(300).with_finish(200)) == 300


def test_a_longer_running_sibling_raises_the_expectation() -> None:
    assert estimate(FRESH.with_finish(300).with_running(450)) == 450


def test_responses_of_earlier_batches_are_the_estimate_until_a_finish() -> None:
    known = replace(FRESH, longest_earlier=400)
    assert estimate(known) == 400
    assert estimate(known.with_running(450)) == 450
    assert estimate(known.with_finish(300)) == 300
    assert estimate(replace(FRESH, longest_earlier=1001)) == 1000


@given(views, lengths)
def test_after_a_finish_new_facts_never_lower_the_estimate(view: GroupView, length: int) -> None:
    known = replace(view, finished=view.finished + 1)
    assert estimate(known.with_finish(length)) >= estimate(known)
    assert estimate(known.with_running(length)) >= estimate(known)
    assert 0 <= estimate(view) <= view.max_tokens


@given(views, lengths)
def test_after_a_finish_new_facts_never_lower_the_longest_possible(view: GroupView, length: int) -> None:
    known = replace(view, finished=view.finished + 1)
    assert longest_possible(known.with_finish(length)) >= longest_possible(known)
    assert longest_possible(known.with_running(length)) >= longest_possible(known)
    assert estimate(view) <= longest_possible(view) <= view.max_tokens


@given(views, lengths)
def test_every_fact_makes_a_new_revision(view: GroupView, length: int) -> None:
    assert view.with_finish(length).revision == view.with_running(length).revision == view.revision + 1


def test_a_running_response_is_news_only_from_a_full_step_on() -> None:
    known = FRESH.with_finish(100)
    assert not is_news(known, 124)
    assert is_news(known, 125)


def test_nothing_is_news_before_a_finish_or_below_the_first_bound() -> None:
    assert not is_news(FRESH, 999)
    assert not is_news(FRESH.with_finish(1), FIRST_BOUND - 1)
    assert is_news(FRESH.with_finish(1), FIRST_BOUND)


def test_a_response_that_outgrows_those_of_earlier_batches_is_news() -> None:
    known = replace(FRESH, longest_earlier=400)
    assert not is_news(known, 499)
    assert is_news(known, 500)


def test_a_response_makes_news_a_logarithmic_number_of_times() -> None:
    view, told = FRESH.with_finish(10), 0
    for generated in range(1, 1000):
        if is_news(view, generated):
            view, told = view.with_running(generated), told + 1
    assert STEP**told <= 1000 / FIRST_BOUND * STEP

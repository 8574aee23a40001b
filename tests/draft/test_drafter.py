"""The drafter's proposals from the texts that it received."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.draft.desk import PROMPT, Desk, pack

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=30)
ORIGINS = ("own", "siblings", "earlier", "prompt")
RESPONSE = [int(token) for token in np.random.default_rng(5).integers(0, 50, 400)]
OTHER = [int(token) for token in np.random.default_rng(6).integers(50, 90, 400)]


def test_a_response_like_its_sibling_is_drafted_from_the_sibling() -> None:
    for fed_from_elsewhere in (False, True):
        desk = Desk()
        if fed_from_elsewhere:
            desk.drafter.append("g", 1, 0, pack(RESPONSE))
        else:
            desk.play(desk.open("g", 1), RESPONSE)
        slot = desk.open("g", 0)
        assert desk.play(slot, RESPONSE) < len(RESPONSE) / 5
        metrics = desk.drafter.metrics()
        assert metrics["accepted_siblings"] > 0.9 * len(RESPONSE) * 0.8
        assert metrics["tokens_refs_1"] / metrics["steps_refs_1"] > 5


def test_a_response_that_repeats_itself_is_drafted_from_itself() -> None:
    desk = Desk()
    assert desk.play(desk.open("g", 0), RESPONSE[:50] * 6) < 150
    metrics = desk.drafter.metrics()
    assert metrics["accepted_own"] > 100
    assert metrics["drafted_siblings"] == 0


def test_a_response_that_copies_its_prompt_is_drafted_from_the_prompt() -> None:
    desk = Desk()
    slot = desk.open("g", 0, prompt=RESPONSE)
    assert desk.play(slot, RESPONSE[100:200]) < 40
    assert desk.drafter.metrics()["accepted_prompt"] > 60


def test_responses_of_earlier_iterations_are_a_separate_origin() -> None:
    desk = Desk()
    desk.drafter.seed("g", [pack(OTHER), pack(RESPONSE)])
    assert desk.play(desk.open("g", 0), RESPONSE) < len(RESPONSE) / 5
    metrics = desk.drafter.metrics()
    assert metrics["accepted_earlier"] > 250
    assert metrics["tokens_refs_0"] == len(RESPONSE)  # an earlier response is no sibling


def test_one_groups_tokens_are_never_proposed_to_another() -> None:
    desk = Desk()
    desk.drafter.append("g", 1, 0, pack(RESPONSE))
    slot = desk.open("h", 0)
    assert desk.play(slot, RESPONSE[:100]) > 80


@given(st.lists(TOKENS, min_size=1, max_size=4), TOKENS)
def test_every_draft_continues_like_a_text_of_the_group(others: list[list[int]], own: list[int]) -> None:
    desk = Desk(slots=1)
    for number, text in enumerate(others):
        desk.drafter.append("g", number + 1, 0, pack(text))
    slot = desk.open("g", 0)
    texts = [" ".join(map(str, [*PROMPT, *text])) + " " for text in others]
    for done in range(len(own)):
        draft = desk.step({slot: own[done : done + 1]})[slot]
        tail = " ".join(map(str, [own[done], *draft])) + " "
        written = " ".join(map(str, [*PROMPT, *own[: done + 1]])) + " "
        assert any(tail in text for text in [*texts, written]) or not draft


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 40), st.integers(1, 20)), max_size=20))
def test_repeated_or_overlapping_deltas_change_nothing(pieces: list[tuple[int, int, int]]) -> None:
    """A log that is read again from any position stays the same."""
    plain, twice = Desk(slots=1), Desk(slots=1)
    logs = {index: RESPONSE[index * 60 : index * 60 + 60] for index in (1, 2, 3)}
    known = dict.fromkeys(logs, 0)
    for index, position, length in pieces:
        log = logs[index]
        position = min(position, known[index])
        reached = max(known[index], min(position + length, len(log)))
        plain.drafter.append("g", index, known[index], pack(log[known[index] : reached]))
        reached_twice = twice.drafter.append("g", index, position, pack(log[position : position + length]))
        twice.drafter.append("g", index, 0, pack(log[:position]))
        assert reached_twice == reached
        known[index] = reached
    assert plain.drafter.known("g") == twice.drafter.known("g")
    for index, log in logs.items():
        slot, other = plain.open("g", 0), twice.open("g", 0)
        for token in log[:25]:
            assert plain.step({slot: [token]})[slot] == twice.step({other: [token]})[other], index
        plain.close(slot)
        twice.close(other)


def test_after_a_gap_a_response_continues_as_a_separate_text() -> None:
    desk = Desk()
    assert desk.drafter.append("g", 1, 0, pack(RESPONSE[:100])) == 100
    assert desk.drafter.append("g", 1, 200, pack(RESPONSE[200:300])) == 300
    slot = desk.open("g", 0)
    assert desk.play(slot, RESPONSE[200:300]) < 30


def test_known_tokens_of_a_request_are_not_stored_twice() -> None:
    desk = Desk()
    desk.drafter.append("g", 0, 0, pack(RESPONSE))
    before = desk.drafter.metrics()["draft_bytes"]
    slot = desk.open("g", 0, RESPONSE)
    assert desk.drafter.metrics()["draft_bytes"] <= before + 64 * (len(PROMPT) + len(RESPONSE))
    desk.step({slot: [1, 2, 3]})
    desk.close(slot)
    bytes_once = desk.drafter.metrics()["draft_bytes"]
    again = desk.open("g", 0, [*RESPONSE, 1, 2, 3])
    assert desk.drafter.metrics()["draft_bytes"] == bytes_once
    assert desk.drafter.known("g") == {0: len(RESPONSE) + 3}
    desk.close(again)


def test_a_request_that_lost_tokens_continues_from_the_rest() -> None:
    desk = Desk()
    slot = desk.open("g", 0)
    desk.play(slot, RESPONSE[:100])
    desk.close(slot)
    slot = desk.open("g", 0, [*RESPONSE[:80], *OTHER[:10]])
    desk.play(slot, [*RESPONSE[:80], *OTHER[:100]], done=90)
    desk.close(slot)
    assert desk.drafter.known("g") == {0: 180}


def test_a_live_request_grows_only_by_its_own_steps() -> None:
    desk = Desk()
    slot = desk.open("g", 0, RESPONSE[:10])
    assert desk.drafter.append("g", 0, 0, pack(RESPONSE)) == 10
    desk.close(slot)
    assert desk.drafter.append("g", 0, 10, pack(RESPONSE[10:])) == len(RESPONSE)


def test_no_draft_is_longer_than_allowed_and_one_token_may_be_the_limit() -> None:
    for limit in (1, 3, 64):
        desk = Desk(max_tokens=limit)
        desk.drafter.append("g", 1, 0, pack(RESPONSE))
        slot = desk.open("g", 0)
        lengths = [len(desk.step({slot: [token]})[slot]) for token in RESPONSE[:200]]
        assert max(lengths) == min(limit, max(lengths))
        assert max(lengths) >= min(limit, 8)


def test_more_requests_than_slots_are_refused_with_the_number() -> None:
    desk = Desk(slots=1)
    slot = desk.open("g", 0)
    with pytest.raises(ValueError, match="all 1 slots are taken"):
        desk.drafter.open("g", 1, np.array(PROMPT, np.int32), 4)
    desk.close(slot)
    desk.open("g", 1)


def test_idle_groups_are_dropped_when_memory_is_short() -> None:
    desk = Desk(memory_bytes=400_000)
    slot = desk.open("live", 0)
    desk.drafter.append("live", 1, 0, pack(RESPONSE))
    chance = np.random.default_rng(1)
    for number in range(60):
        desk.drafter.append(f"g{number}", 0, 0, chance.integers(0, 90, 400).astype("<i4").tobytes())
        desk.drafter.release(f"g{number}")
    assert desk.drafter.metrics()["draft_bytes"] <= 400_000
    assert desk.drafter.known("g0") == {}
    assert desk.drafter.known("g59") == {0: 400}
    assert desk.play(slot, RESPONSE) < len(RESPONSE) / 5


def test_a_request_without_memory_continues_without_drafts() -> None:
    desk = Desk(memory_bytes=60_000)
    slot = desk.open("g", 0)
    chance = np.random.default_rng(2)
    for _ in range(40):
        desk.step({slot: [int(token) for token in chance.integers(0, 90, 100)]})
    assert desk.drafter.metrics()["draft_full"] == 1
    assert desk.step({slot: [1]})[slot] == []
    desk.close(slot)


def test_a_position_with_an_unknown_token_enters_no_automaton() -> None:
    desk = Desk()
    holed = desk.open("g", 0, [-1, *RESPONSE[:8]])
    grown = desk.open("g", 1)
    assert desk.step({grown: [*RESPONSE[:8], -1, *RESPONSE[8:]]})[grown] == []
    desk.close(holed)
    desk.close(grown)
    later = desk.open("g", 2, RESPONSE[:8])
    for token in RESPONSE[8:]:
        assert -1 not in desk.step({later: [token]})[later]
    assert desk.drafter.append("g", 3, 0, pack([5, -1, 6])) == 1


def test_a_request_of_a_group_without_memory_disturbs_no_other() -> None:
    desk = Desk(memory_bytes=60_000)
    first = desk.open("full", 0)
    chance = np.random.default_rng(2)
    while not desk.drafter.metrics()["draft_full"]:
        # One token at a time, so that even the last states are used.
        desk.step({first: [int(chance.integers(0, 90))]})
    poor = desk.open("poor", 0)
    assert desk.drafter.known("poor") == {}
    assert desk.step({poor: RESPONSE[:10]})[poor] == []
    desk.close(first)
    assert desk.drafter.append("poor", 1, 0, pack(RESPONSE)) == len(RESPONSE)
    desk.close(poor)
    again = desk.open("poor", 0)
    assert desk.play(again, RESPONSE) < len(RESPONSE) / 3
    metrics = desk.drafter.metrics()
    assert metrics["tokens_refs_1"] >= len(RESPONSE)


def test_requests_of_groups_without_memory_have_no_corpus() -> None:
    desk = Desk(memory_bytes=60_000)
    first = desk.open("full", 0)
    chance = np.random.default_rng(2)
    while not desk.drafter.metrics()["draft_full"]:
        desk.step({first: [int(chance.integers(0, 90))]})
    for number in range(6):
        poor = desk.open(f"poor{number}", 0)
        assert desk.drafter.known(f"poor{number}") == {}
        for token in RESPONSE[:3]:
            desk.step({poor: [token]})
        desk.close(poor)
    metrics = desk.drafter.metrics()
    assert {size: metrics[f"steps_refs_{size}"] for size in (1, 2, 4, 8)} == dict.fromkeys((1, 2, 4, 8), 0)


def test_the_metrics_add_up() -> None:
    desk = Desk()
    desk.drafter.append("g", 1, 0, pack(RESPONSE))
    desk.drafter.append("g", 2, 0, pack(OTHER))
    steps = desk.play(desk.open("g", 0), RESPONSE[:200] + OTHER[:200])
    metrics = desk.drafter.metrics()
    for kind in ("drafted", "accepted"):
        assert metrics[f"{kind}_tokens"] == sum(
            metrics[f"{kind}_{origin}"] for origin in ("own", "siblings", "earlier", "prompt")
        )
    assert 0 < metrics["accepted_tokens"] <= metrics["drafted_tokens"]
    assert metrics["steps_refs_2"] == steps
    assert metrics["tokens_refs_2"] == 400
    assert 0 < metrics["draft_steps"] <= steps
    assert metrics["draft_seconds"] > 0

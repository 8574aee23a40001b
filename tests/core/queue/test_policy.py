"""The priority that each policy gives a group, and the worker to which it binds the group."""

from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openseer_core.ids import GroupId
from openseer_core.json_model import INT32_MAX
from openseer_core.manifest.fleet import PolicyName
from openseer_core.queue.group import SHARED_LANE, GroupView
from openseer_core.queue.placement import Lanes
from openseer_core.queue.policy import policy


def view(name: str = "a", *, batch: int = 0, ordinal: int = 0, enqueued_at: float = 0.0, tier: int = 0) -> GroupView:
    return GroupView(GroupId(batch, name), 0, ordinal, 8, 1000, enqueued_at, tier=tier, batch_ordinal=batch)


def score(name: str, of: GroupView, *, rank: float = 0.0, generated: int = 0, probe: bool = False) -> float:
    return policy(name, ageing=0.5).priority(of).request_score(rank, generated, is_probe=probe)


def test_context_aware_puts_probes_first_and_the_shortest_ahead() -> None:
    long_group = view().with_finish(1000)
    probe, older_probe = (
        score("context-aware", view(), probe=True),
        score("context-aware", view(), generated=9, probe=True),
    )
    assert probe < older_probe < score("context-aware", long_group)


def test_context_aware_puts_the_longest_group_first() -> None:
    short, long = view().with_finish(100), view().with_finish(190)
    assert score("context-aware", long) < score("context-aware", short)
    assert score("seer", long) < score("seer", short)


def test_context_aware_orders_by_the_tokens_that_may_remain() -> None:
    group = view().with_finish(100)
    lefts = [score("context-aware", group, generated=tokens) for tokens in (0, 200, 400)]
    assert lefts == sorted(set(lefts))
    assert score("context-aware", view(), generated=300) < score("context-aware", group)


def test_in_an_unknown_group_the_least_generated_goes_first() -> None:
    assert score("context-aware", view(), generated=10) < score("context-aware", view("b"), generated=20)
    assert score("seer", view(), generated=10) == score("seer", view("b"), generated=20)


def test_a_running_sibling_changes_only_the_score_of_context_aware() -> None:
    group = view().with_finish(100)
    assert score("context-aware", group.with_running(150)) < score("context-aware", group)
    assert score("seer", group.with_running(150)) == score("seer", group)


def test_lengths_of_earlier_batches_count_beside_finished_ones() -> None:
    short, known = view().with_finish(50), replace(view(), longest_earlier=200)
    assert score("context-aware", known.with_finish(50)) == score("context-aware", known)
    assert score("context-aware", view()) < score("context-aware", known) < score("context-aware", short)
    assert score("context-aware", known.with_finish(300)) < score("context-aware", known)


def test_no_response_is_expected_to_exceed_max_tokens() -> None:
    assert score("context-aware", view().with_finish(300)) == score("context-aware", view())


def test_ageing_brings_the_earlier_group_forward() -> None:
    assert score("context-aware", view(enqueued_at=10.0)) < score("context-aware", view(enqueued_at=20.0))


@pytest.mark.parametrize("name", ["context-aware", "seer", "fifo", "longest-first-oracle"])
def test_an_older_batch_goes_before_a_newer_one_of_its_tier(name: str) -> None:
    late, many = view(batch=3, enqueued_at=2e9, ordinal=10**6), 10**6
    early_probe = score(name, view(batch=4, enqueued_at=2e9 - 3600), probe=True)
    assert score(name, late.with_finish(10), generated=900) < early_probe
    assert score(name, view(batch=many)) < score(name, view(tier=1), probe=True)
    assert score(name, view(batch=many, tier=-2)) < score(name, view(tier=-1), probe=True)


def test_each_token_changes_the_score_in_the_millionth_batch() -> None:
    chosen = policy("context-aware", ageing=1.0)
    probes = [
        chosen.priority(view(batch=10**6, tier=3, enqueued_at=2e9)).request_score(0.0, generated, is_probe=True)
        for generated in (0, 1, 2)
    ]
    assert probes == sorted(set(probes))


@pytest.mark.parametrize("name", ["context-aware", "seer"])
@given(st.integers(1, INT32_MAX), st.integers(0, 2**20))
def test_no_max_tokens_brings_a_request_before_probes_or_older_batches(name: str, most: int, generated: int) -> None:
    large = replace(view(batch=3), max_tokens=most)
    older = view(batch=2).with_finish(1)
    assert score(name, view(batch=3), generated=generated, probe=True) < score(name, large)
    assert score(name, older, generated=generated) < score(name, large, probe=True) < score(name, large)


def test_no_stated_length_brings_a_request_before_another_batch() -> None:
    oracle = policy("longest-first-oracle")
    older = score("longest-first-oracle", view(batch=2), generated=2**20)
    assert older < score("longest-first-oracle", view(batch=3), rank=oracle.bias(INT32_MAX))


def test_without_probes_the_first_request_is_like_any_other() -> None:
    chosen = policy("context-aware", probe=False).priority(view())
    assert chosen.probe is None
    assert chosen.request_score(0.0, 5, is_probe=True) == chosen.request_score(0.0, 5, is_probe=False)


@pytest.mark.parametrize("name", ["fifo", "round-robin", "least-inflight"])
def test_first_come_first_served_orders_by_batch_then_by_group(name: str) -> None:
    order = [view(batch=0, ordinal=0), view(batch=0, ordinal=1), view(batch=1, ordinal=0)]
    scores = [score(name, view) for view in order]
    assert scores == sorted(set(scores))
    assert score(name, order[0].with_finish(999)) == scores[0]


def test_the_oracle_orders_by_remaining_tokens_longest_first() -> None:
    oracle = policy("longest-first-oracle")
    left = {"a": (900, 100), "b": (700, 0), "c": (900, 300)}
    chosen = oracle.priority(view())
    scores = {
        name: chosen.request_score(oracle.bias(length), generated, is_probe=False)
        for name, (length, generated) in left.items()
    }
    assert sorted(scores, key=scores.__getitem__) == ["a", "b", "c"]


def test_only_policies_that_bind_groups_never_move_them() -> None:
    assert {name for name in get_args(PolicyName) if not policy(name).divided} == {"round-robin", "least-inflight"}


def test_an_unknown_policy_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        policy("fastest")


def test_round_robin_binds_whole_groups_in_turn() -> None:
    lanes = Lanes("round-robin", 2)
    assert [lanes.bind(ordinal, 2) for ordinal in range(3)] == [("0", "0"), ("1", "1"), ("0", "0")]


def test_other_policies_bind_no_group() -> None:
    assert Lanes("context-aware", 4).bind(3, 2) == (SHARED_LANE, SHARED_LANE)


@given(st.integers(1, 5), st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_least_inflight_keeps_loads_within_one(workers: int, sizes: list[int]) -> None:
    lanes = Lanes("least-inflight", workers)
    loads = Counter({str(worker): 0 for worker in range(workers)})
    for ordinal, size in enumerate(sizes):
        bound = lanes.bind(ordinal, size)
        assert len(bound) == size
        loads.update(bound)
        assert max(loads.values()) - min(loads.values()) <= 1

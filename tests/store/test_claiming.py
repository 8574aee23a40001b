"""The requests that a claim receives: the same on every store."""

import pytest

from openseer_core.ids import GroupId, WorkerId
from openseer_core.queue.group import Priority
from openseer_core.queue.kv_blocks import KvGroup, KvLayout
from openseer_core.queue.messages import Rescore, WriteOutcome
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_store.port import Store
from tests.store.builders import ANN, BOB, PROBE, Clock, delta, extend, finish, group, names, query, wait


async def test_the_group_with_the_lowest_score_goes_first(store: Store) -> None:
    await store.submit([group("late", priority=Priority(2.0)), group("early", priority=Priority(1.0))])
    assert names(await store.claim(ANN, query(3))) == ["early/0", "early/1", "late/0"]


async def test_groups_of_one_score_are_ordered_by_name(store: Store) -> None:
    await store.submit([group("b", 1), group("a", 1)])
    assert names(await store.claim(ANN, query())) == ["a/0", "b/0"]


async def test_probes_go_before_all_others(store: Store) -> None:
    await store.submit([group("a", 2, PROBE), group("b", 2, PROBE)])
    assert names(await store.claim(ANN, query())) == ["a/0", "b/0", "a/1", "b/1"]


async def test_a_returned_probe_precedes_others_and_follows_shorter_probes(store: Store) -> None:
    await store.submit([group("a", 2, PROBE), group("b", 2, PROBE)])
    [probe] = await store.claim(ANN, query(1))
    await store.give_back(ANN, [delta(probe, 5)])
    assert names(await store.claim(ANN, query())) == ["b/0", "a/0", "a/1", "b/1"]


async def test_ranks_order_requests_within_their_group(store: Store) -> None:
    await store.submit([group("a", ranks=(3.0, 1.0, 2.0))])
    assert names(await store.claim(ANN, query())) == ["a/1", "a/2", "a/0"]


async def test_slope_moves_a_request_by_its_generated_tokens(store: Store) -> None:
    await store.submit([group("a", priority=Priority(0.0, slope=1.0)), group("b", 1, Priority(4.0))])
    first, second = await store.claim(ANN, query(2))
    await store.give_back(ANN, [delta(first, 5), delta(second, 3)])
    assert names(await store.claim(ANN, query())) == ["a/1", "b/0", "a/0"]


async def test_a_worker_claims_the_best_of_all_versions_that_it_has(store: Store) -> None:
    await store.submit(
        [
            group("weights", 1, Priority(2.0)),
            group("adapter", 1, Priority(1.0), version="a1"),
            group("other", 1, Priority(0.0), version="b1"),
        ]
    )
    claims = await store.claim(ANN, query(adapters=("a1",)))
    assert [(claim.request.group.name, claim.version) for claim in claims] == [("adapter", "a1"), ("weights", "v1")]
    assert names(await store.claim(BOB, query())) == []


async def test_a_worker_claims_only_its_version(store: Store) -> None:
    await store.submit([group("new", 1, version="v2"), group("old", 1)])
    assert names(await store.claim(ANN, query(version="v2"))) == ["new/0"]


async def test_a_workers_own_lane_is_served_only_by_it_without_fair_share(store: Store) -> None:
    await store.submit([group("a", lanes=("", "0", "0", "1"), size=4)])
    for worker in (ANN, BOB):
        await store.heartbeat(worker, Heartbeat(WorkerState.IDLE))
    claims = await store.claim(ANN, query(lanes=("0",), slack=0))
    assert names(claims) == ["a/1", "a/2"]
    assert names(await store.claim(ANN, query(lanes=("1", "")))) == ["a/3", "a/0"]


async def test_a_worker_gets_its_fair_share_and_slack(store: Store) -> None:
    await store.submit([group("a", 10)])
    await store.heartbeat(BOB, Heartbeat(WorkerState.BUSY))
    assert len(await store.claim(ANN, query(slack=1))) == 6
    assert not await store.claim(ANN, query(slack=1))
    assert len(await store.claim(BOB, query(slack=1))) == 4


async def test_draining_and_silent_workers_do_not_count_in_the_share(store: Store, clock: Clock) -> None:
    await store.submit([group("a", 8)])
    for name in ("drains", "silent"):
        await store.heartbeat(WorkerId(name, "1"), Heartbeat(WorkerState.IDLE))
    await store.heartbeat(WorkerId("drains", "1"), Heartbeat(WorkerState.DRAINING))
    assert len(await store.claim(ANN, query(slack=0))) == 4
    await wait(store, clock, 11)
    await store.claim(BOB, query(0))
    assert (await extend(store, BOB, [])).fleet_load.workers == 1


async def test_a_worker_prefers_its_cached_ones_of_a_groups_first_requests(store: Store) -> None:
    await store.submit([group("a", 6)])
    claims = await store.claim(ANN, query(4))
    await store.give_back(ANN, [delta(claim, 1) for claim in claims[2:]])
    others = await store.claim(BOB, query(1))
    assert names(others) == ["a/2"]
    await store.give_back(BOB, [delta(others[0], 1)])
    assert names(await store.claim(ANN, query(1))) == ["a/3"]
    again = WorkerId(ANN.name, "2")
    assert names(await store.claim(again, query(1))) == ["a/2"]  # another boot has an empty cache


@pytest.mark.parametrize(("ahead", "claimed"), [(5, "a/0"), (6, "a/1")])
async def test_a_cached_request_is_preferred_only_within_a_quantum(store: Store, ahead: int, claimed: str) -> None:
    await store.submit([group("a", 2, Priority(0.0, slope=1.0))])
    own, other = await store.claim(ANN, query(1)), await store.claim(BOB, query(1))
    await store.give_back(ANN, [delta(own[0], 1 + ahead)])
    await store.give_back(BOB, [delta(other[0], 1)])
    assert names(await store.claim(ANN, query(1, quantum=5))) == [claimed]


async def test_a_cached_request_does_not_precede_its_groups_probe(store: Store) -> None:
    await store.submit([group("a", 2, PROBE)])
    probe, sibling = await store.claim(ANN, query(2))
    await store.give_back(ANN, [delta(sibling, 1), delta(probe, 1)])
    [moved] = await store.claim(BOB, query(1))
    await store.give_back(BOB, [delta(moved, 1)])
    assert names(await store.claim(ANN, query())) == ["a/0", "a/1"]


@pytest.mark.parametrize(("cached", "claimed"), [(3, "a/3"), (4, "a/0")])
async def test_only_a_groups_first_four_waiting_requests_are_considered(
    store: Store, cached: int, claimed: str
) -> None:
    await store.submit([group("a", 6)])
    claims = await store.claim(ANN, query(cached + 1))
    await store.give_back(ANN, [delta(claims[cached], 1)])
    await store.give_back(ANN, [delta(claim, 1) for claim in claims[:cached]])
    others = await store.claim(BOB, query(cached))  # prefers nothing, so takes the first ones
    await store.give_back(BOB, [delta(claim, 1) for claim in others])
    assert names(await store.claim(ANN, query(1))) == [claimed]


async def test_a_worker_counts_until_it_was_silent_for_more_than_ten_seconds(store: Store, clock: Clock) -> None:
    await store.heartbeat(ANN, Heartbeat(WorkerState.IDLE))
    for seconds, workers in ((10.0, 2), (0.25, 1)):
        await wait(store, clock, seconds)
        await store.claim(BOB, query(0))
        assert (await extend(store, BOB, [])).fleet_load.workers == workers


async def test_a_request_that_does_not_fit_does_not_block_a_smaller_one(store: Store) -> None:
    large = group("a", 1, prompt_tokens=160)
    await store.submit([large, group("b", 1, prompt_tokens=16)])
    assert names(await store.claim(ANN, query(blocks=10))) == ["b/0"]
    assert names(await store.claim(ANN, query(blocks=11))) == ["a/0"]


async def test_blocks_count_prompt_tokens_quantum_and_margin_up_to_the_end(store: Store) -> None:
    await store.submit([group("a", 4, prompt_tokens=16, max_tokens=24)])
    assert not await store.claim(ANN, query(blocks=1, quantum=1))
    assert len(await store.claim(ANN, query(blocks=2, quantum=16))) == 1
    assert not await store.claim(ANN, query(blocks=2, quantum=16, margin=1))
    assert len(await store.claim(ANN, query(blocks=3, quantum=100, margin=100))) == 1
    assert len(await store.claim(ANN, query(blocks=2, quantum=100, context_tokens=32))) == 1


async def test_blocks_are_counted_by_groups_of_layers(store: Store) -> None:
    layout = KvLayout((KvGroup(16), KvGroup(16, count=2, fixed=1, most=2, most_computing=4)))
    await store.submit([group("a", 3, prompt_tokens=160, max_tokens=64)])
    # 11 blocks of all tokens, and two groups that take 4 while the prompt is computed and one at any time.
    assert not await store.claim(ANN, query(blocks=20, layout=layout))
    assert len(await store.claim(ANN, query(blocks=41, layout=layout))) == 1
    assert len(await store.claim(ANN, query(blocks=42, layout=layout))) == 2


async def test_small_requests_behind_many_that_do_not_fit_are_claimed_in_order(store: Store) -> None:
    large = [group(f"large-{place:02}", 1, Priority(0.0), prompt_tokens=160) for place in range(40)]
    medium = [group(f"medium-{place}", 1, Priority(2.0 + place), prompt_tokens=40) for place in range(2)]
    small = [group(f"small-{place}", 2, Priority(1.0 + 2 * place), prompt_tokens=8) for place in range(2)]
    await store.submit([*large, *medium, *small])
    claims = await store.claim(ANN, query(blocks=9))
    assert names(claims) == ["small-0/0", "small-0/1", "medium-0/0"]
    assert names(await store.claim(BOB, query(blocks=4))) == ["medium-1/0"]
    assert names(await store.claim(BOB, query(blocks=3))) == ["small-1/0"]
    assert len(await store.claim(ANN, query())) == 41


async def test_a_request_that_was_given_back_waits_among_those_of_its_size(store: Store) -> None:
    large = [group(f"large-{place:02}", 1, Priority(0.0), prompt_tokens=160) for place in range(20)]
    await store.submit([group("grown", 1, Priority(-1.0), prompt_tokens=8), group("small", 1, Priority(5.0))])
    [grown, _] = await store.claim(ANN, query())
    await store.give_back(ANN, [delta(grown, 90)])
    await store.submit([*large, group("late", 1, Priority(6.0), prompt_tokens=8)])
    assert names(await store.claim(BOB, query(blocks=3))) == ["late/0"]
    assert names(await store.claim(BOB, query(blocks=8))) == ["grown/0"]


async def test_a_claim_considers_the_first_sixteen_groups_of_each_size(store: Store) -> None:
    large = [group(f"{place:02}", 1, prompt_tokens=120) for place in range(16)]
    await store.submit([*large, group("fits", 1, prompt_tokens=64), group("small", 1, prompt_tokens=63)])
    assert names(await store.claim(ANN, query(blocks=6))) == ["small/0"]
    assert len(await store.claim(ANN, query())) == 17


async def test_a_request_without_room_in_the_context_needs_no_block(store: Store) -> None:
    large = [group(f"large-{place:02}", 1, Priority(0.0), prompt_tokens=160) for place in range(20)]
    await store.submit([*large, group("past", 1, Priority(5.0), prompt_tokens=400)])
    assert names(await store.claim(ANN, query(blocks=3, context_tokens=200))) == ["past/0"]


async def test_a_claim_has_all_data_that_a_worker_needs_to_continue(store: Store) -> None:
    spec = group("a", 2, Priority(-7.5, 0.25, -3.0), ranks=(0.5, 1.5))
    await store.submit([spec])
    [claim] = await store.claim(ANN, query(1))
    await store.give_back(ANN, [delta(claim, 3)])
    [again] = await store.claim(BOB, query(1))
    assert (again.request, again.prompt, again.generated) == (claim.request, spec.prompt, 3)
    assert (again.max_tokens, again.bias, again.sampling) == (spec.max_tokens, 0.5, "{}")
    assert (again.priority, again.view) == (spec.priority, spec.view())
    assert again.fence > claim.fence


async def test_a_finish_moves_all_waiting_siblings_at_once(store: Store) -> None:
    await store.submit([group("a", 3, Priority(0.0)), group("b", 3, Priority(5.0))])
    [claim] = await store.claim(ANN, query(1))
    rescore = Rescore(claim.view.with_finish(4), Priority(9.0))
    [reply] = await store.complete(ANN, [finish(claim, 4, rescore=rescore)])
    assert reply.outcome is WriteOutcome.OK
    assert reply.view == claim.view.with_finish(4)
    assert names(await store.claim(ANN, query(4))) == ["b/0", "b/1", "b/2", "a/1"]


async def test_a_stale_rescore_writes_nothing_and_brings_the_present_view(store: Store) -> None:
    await store.submit([group("a", 3)])
    first, second, _ = await store.claim(ANN, query())
    await store.complete(ANN, [finish(first, 4, rescore=Rescore(first.view.with_finish(4), Priority(1.0)))])
    late = Rescore(second.view.with_finish(6), Priority(2.0))
    [reply] = await store.complete(ANN, [finish(second, 6, rescore=late)])
    assert (reply.outcome, reply.have) == (WriteOutcome.STALE, 0)
    assert reply.view is not None
    assert reply.view == await store.group_view(GroupId(0, "a"))
    assert (await store.progress(0)).ok == 1
    right = Rescore(reply.view.with_finish(6), Priority(2.0))
    [reply] = await store.complete(ANN, [finish(second, 6, rescore=right)])
    assert reply.outcome is WriteOutcome.OK
    assert (await store.group_view(GroupId(0, "a"))).longest_finished == 6


async def test_a_rescore_of_a_running_sibling_moves_its_group(store: Store) -> None:
    await store.submit([group("a", 2, Priority(0.0)), group("b", 2, Priority(5.0))])
    [claim] = await store.claim(ANN, query(1))
    news = Rescore(claim.view.with_running(80), Priority(8.0))
    reply = await extend(store, ANN, [delta(claim, 2)], [news])
    assert (reply.views, reply.fleet_load.best_waiting) == ((), 5.0)
    repeated = await extend(store, ANN, [], [news])
    assert [view.longest_running for view in repeated.views] == [80]


async def test_an_extend_returns_the_load_and_the_best_waiting_score(store: Store) -> None:
    await store.submit([group("a", 3, Priority(2.0))])
    await store.claim(ANN, query(1))
    await store.claim(BOB, query(1))
    load = (await extend(store, ANN, [])).fleet_load
    assert (load.waiting, load.best_waiting, load.mine, load.inflight, load.workers) == (1, 2.0, 1, 2, 2)
    await store.claim(ANN, query(1))
    assert (await extend(store, ANN, [])).fleet_load.best_waiting == float("inf")

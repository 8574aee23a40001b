"""The tokens from which workers draft, the same on every store: those of siblings and of earlier batches."""

import pytest

from openseer_core.ids import GroupId
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.length_estimate import estimate
from openseer_core.queue.messages import Claim, WriteOutcome
from openseer_core.queue.siblings import (
    EARLIER_SECONDS,
    EARLIER_TOKENS,
    SiblingQuery,
    Siblings,
    SiblingTokens,
    prompt_digest,
)
from openseer_core.queue.states import Status
from openseer_core.tokens import ITEM_BYTES
from openseer_store.keys import prefix
from openseer_store.port import Store
from openseer_store.redis_link import RedisLink
from tests.store.builders import ANN, BOB, Clock, delta, extend, finish, group, query, request, tokens, wait

A = GroupId(0, "a")
ROOM = 2**20
PROMPT = prompt_digest(tokens(0, 16))


async def claimed(store: Store, *names: str, size: int = 3, slots: int = 100) -> list[Claim]:
    await store.submit([group(name, size) for name in names])
    return await store.claim(ANN, query(slots))


async def news(store: Store, *known: tuple[int, int], limit: int = ROOM) -> tuple[tuple[int, int, bytes], ...]:
    """The new tokens of group "a"."""
    answers = await store.siblings([SiblingQuery(A, known)], limit)
    return answers[0].news if answers else ()


async def respond(store: Store, batch: int, count: int, size: int = 2, prompt: str = PROMPT, name: str = "a") -> None:
    """Runs a batch in which a group of one request responds to the prompt with `count` tokens."""
    await store.submit([group(name, 1, batch=batch, history=prompt, history_size=size, max_tokens=100_000)])
    [claim] = await store.claim(ANN, query(context_tokens=200_000))
    await store.complete(ANN, [finish(claim, count)])


async def earlier(store: Store, name: str = "now", prompt: str = PROMPT, limit: int = ROOM) -> tuple[bytes, ...] | None:
    """The responses of earlier batches that the store returns for a new group."""
    await store.submit([group(name, 1, batch=99, history=prompt, history_size=2, version="v9")])
    [answers] = await store.siblings([SiblingQuery(GroupId(99, name), earlier=True)], limit)
    return answers.earlier


async def test_a_worker_reads_the_new_tokens_of_siblings_elsewhere(store: Store) -> None:
    _, one, two = await claimed(store, "a")
    await extend(store, ANN, [delta(one, 5), delta(two, 2)])
    assert await news(store, (1, 0), (2, 0)) == ((1, 0, tokens(0, 5)), (2, 0, tokens(0, 2)))
    await extend(store, ANN, [delta(one, 4, 5)])
    assert await news(store, (1, 5), (2, 2)) == ((1, 5, tokens(5, 4)),)
    assert await news(store, (1, 9), (2, 2)) == ()


async def test_a_late_reader_gets_all_tokens_also_of_finished_siblings(store: Store) -> None:
    first, second, _ = await claimed(store, "a")
    await store.complete(ANN, [finish(first, 7)])
    await extend(store, ANN, [delta(second, 3)])
    assert await news(store, (0, 0), (1, 0), (2, 0)) == ((0, 0, tokens(0, 7)), (1, 0, tokens(0, 3)))


async def test_a_repeated_read_from_one_position_has_the_same_answer(store: Store) -> None:
    first, *_ = await claimed(store, "a")
    await extend(store, ANN, [delta(first, 6)])
    assert await news(store, (0, 2)) == await news(store, (0, 2)) == ((0, 2, tokens(2, 4)),)
    assert await news(store, (0, 2), (0, 4)) == ((0, 2, tokens(2, 4)), (0, 4, tokens(4, 2)))


async def test_one_call_reads_many_groups_and_omits_unknown_ones(store: Store) -> None:
    claims = await claimed(store, "a", "b", size=1)
    await extend(store, ANN, [delta(claim, 2) for claim in claims])
    queries = [
        SiblingQuery(GroupId(0, name), ((0, 0), (5, 0)), earlier=name == "ghost") for name in ("b", "ghost", "a")
    ]
    answers = await store.siblings(queries, ROOM)
    assert answers == [Siblings(GroupId(0, name), (SiblingTokens(0, 0, tokens(0, 2)),)) for name in ("b", "a")]
    assert await store.siblings([], ROOM) == []


async def test_the_recorded_tokens_of_a_lost_lease_are_read(store: Store, clock: Clock) -> None:
    [lost] = await claimed(store, "a", size=1)
    await extend(store, ANN, [delta(lost, 4)])
    await wait(store, clock, 11)
    [taken] = await store.claim(BOB, query())
    assert (await extend(store, ANN, [delta(lost, 6, 4)])).replies[0].outcome is WriteOutcome.LOST
    assert await news(store, (0, 0)) == ((0, 0, tokens(0, 4)),)
    await extend(store, BOB, [delta(taken, 1)])
    assert await news(store, (0, 4)) == ((0, 4, tokens(4, 1)),)


async def test_a_reader_with_more_tokens_than_the_store_gets_none(store: Store) -> None:
    first, *_ = await claimed(store, "a")
    await extend(store, ANN, [delta(first, 4)])
    assert await news(store, (0, 9)) == ()


async def test_a_full_answer_has_short_logs_whole_and_equal_parts_of_others(
    store: Store,
) -> None:
    claims = await claimed(store, "a", size=4)
    lengths = [40, 3, 50, 1]
    await extend(store, ANN, [delta(claim, length) for claim, length in zip(claims, lengths, strict=True)])
    known = dict.fromkeys(range(4), 0)
    answers = await news(store, *known.items(), limit=24 * ITEM_BYTES)
    assert {index: len(data) // ITEM_BYTES for index, _, data in answers} == {0: 10, 1: 3, 2: 10, 3: 1}
    calls = 0
    while answers := await news(store, *known.items(), limit=24 * ITEM_BYTES):
        assert sum(len(data) for *_, data in answers) <= 24 * ITEM_BYTES
        for index, position, data in answers:
            assert (position, data) == (known[index], tokens(position, len(data) // ITEM_BYTES))
            known[index] += len(data) // ITEM_BYTES
        calls += 1
    assert [known[index] for index in range(4)] == lengths
    assert calls == 4


async def test_an_answer_without_room_for_every_log_has_some_of_them(store: Store) -> None:
    claims = await claimed(store, "a")
    await extend(store, ANN, [delta(claim, 1) for claim in claims])
    assert len(await news(store, (0, 0), (1, 0), (2, 0), limit=2 * ITEM_BYTES)) == 2


async def test_earlier_responses_are_newest_first_up_to_the_history_size(store: Store) -> None:
    assert await earlier(store, "before") == ()
    for batch, count in enumerate((5, 30, 20), start=1):
        await respond(store, batch, count)
    await respond(store, 4, 9, prompt="another")
    assert await earlier(store) == (tokens(0, 20), tokens(0, 30))
    assert await store.longest_earlier([PROMPT, "another", "unknown"]) == [30, 9, 0]
    assert await store.longest_earlier([]) == []


async def test_earlier_responses_are_kept_after_their_batch_until_a_purge(store: Store) -> None:
    opened, _ = await store.open_batch(OpenBatch("v1", "{}"))
    await respond(store, opened.number, 5)
    await store.acknowledge(opened.number, 2)
    await store.forget(opened.number)
    assert await earlier(store) == (tokens(0, 5),)
    await store.purge()
    assert await earlier(store) == ()
    assert await store.longest_earlier([PROMPT]) == [0]


async def test_only_whole_responses_of_groups_with_a_history_are_kept_once(store: Store) -> None:
    await respond(store, 1, 5, prompt="")
    await respond(store, 2, 0)
    await store.submit([group("a", 3, batch=3, history=PROMPT, history_size=8)])
    aborted, kept, cancelled = await store.claim(ANN, query())
    await store.complete(ANN, [finish(aborted, 4, status=Status.ABORTED), finish(kept, 3), finish(kept, 3)])
    await extend(store, ANN, [delta(cancelled, 8)])
    await store.end(3)
    assert await earlier(store) == (tokens(0, 3),)


async def test_a_carried_response_is_kept_once(store: Store) -> None:
    await store.submit([group("a", 2, batch=1, history=PROMPT, history_size=8)])
    done, half = await store.claim(ANN, query())
    await store.complete(ANN, [finish(done, 3)])
    await store.give_back(ANN, [delta(half, 2)])
    await store.carry([GroupId(1, "a")], 2, "v1")
    [claim] = await store.claim(ANN, query())
    await store.complete(ANN, [finish(claim, 4)])
    assert await earlier(store) == (tokens(0, 6), tokens(0, 3))


async def test_only_the_whole_of_a_response_of_several_turns_is_kept(store: Store) -> None:
    await respond(store, 1, 5)
    await respond(store, 2, 7)
    assert await store.go_on(request("a/0", 1), 0, tokens(5, 2))
    assert await store.go_on(request("a/0", 1), 0, tokens(5, 2))
    assert await earlier(store, "between") == (tokens(0, 7),)
    assert await store.longest_earlier([PROMPT]) == [7]
    [again] = await store.claim(ANN, query())
    await store.complete(ANN, [finish(again, 3)])
    assert await earlier(store) == (tokens(0, 10), tokens(0, 7))


async def test_a_long_response_is_kept_as_first_tokens_and_whole_length(store: Store) -> None:
    await respond(store, 1, EARLIER_TOKENS + 7)
    assert await earlier(store) == (tokens(0, EARLIER_TOKENS),)
    assert await store.longest_earlier([PROMPT]) == [EARLIER_TOKENS + 7]
    assert await store.go_on(request("a/0", 1), 0, tokens(0, 1))
    assert await earlier(store) == ()


async def test_earlier_responses_expire_unless_their_prompt_recurs(
    kind: str, store: Store, clock: Clock, job: str, request: pytest.FixtureRequest
) -> None:
    await respond(store, 1, 5)
    if kind == "redis":
        await check_expiry(request.getfixturevalue("redis_url"), prefix("default", job))
        return
    await wait(store, clock, EARLIER_SECONDS - 1)
    await respond(store, 2, 6)
    await wait(store, clock, EARLIER_SECONDS - 1)
    assert await earlier(store) == (tokens(0, 6), tokens(0, 5))
    await wait(store, clock, 1)
    assert await earlier(store) == ()
    assert await store.longest_earlier([PROMPT]) == [0]


async def test_the_longest_earlier_response_is_a_new_groups_estimate(store: Store) -> None:
    await store.submit([group("a", 2, longest_earlier=40), group("b", 2)])
    views = [await store.group_view(GroupId(0, name)) for name in ("a", "b")]
    assert [estimate(view) for view in views] == [40, 100]
    [claim] = await store.claim(ANN, query(1))
    assert claim.view.longest_earlier == 40
    await store.complete(ANN, [finish(claim, 10)])
    assert estimate(await store.group_view(A)) == 10
    [spec, _] = await store.groups(0, 0, 10)
    assert (spec.longest_earlier, spec.view().longest_earlier) == (40, 40)


async def test_earlier_responses_and_new_tokens_share_the_room_of_an_answer(
    store: Store,
) -> None:
    for number in range(3):
        await respond(store, 1, 40, prompt=f"p{number}", name=f"g{number}")
    await store.submit([group(f"g{number}", 1, batch=2, history=f"p{number}", history_size=2) for number in range(3)])
    claims = await store.claim(ANN, query())
    await extend(store, ANN, [delta(claim, 90) for claim in claims])
    queries = [SiblingQuery(claim.request.group, ((0, 0),), earlier=True) for claim in claims]
    answers = await store.siblings(queries, 120 * ITEM_BYTES)
    assert [answer.earlier for answer in answers] == [(tokens(0, 40),), (tokens(0, 40),), None]
    assert [len(answer.news[0][2]) // ITEM_BYTES for answer in answers] == [20, 20, 20]
    [rest] = await store.siblings([SiblingQuery(claims[2].request.group, earlier=True)], 120 * ITEM_BYTES)
    assert rest == Siblings(claims[2].request.group, (), (tokens(0, 40),))


@pytest.mark.parametrize("history", [True, False])
async def test_a_group_is_read_with_its_history_settings(store: Store, history: bool) -> None:
    spec = group("a", history=PROMPT, history_size=4) if history else group("a")
    await store.submit([spec])
    assert await store.spec(A) == spec


async def check_expiry(url: str, keys: str) -> None:
    """Checks the remaining time of the keys: they expire by the server's own clock, which no test can set."""
    link = RedisLink(url, keys)
    for kind in ("earlier", "earlier_lengths"):
        left = await link.command("TTL", f"{keys}:{kind}:{PROMPT}")
        assert EARLIER_SECONDS - 60 < left <= EARLIER_SECONDS
    await link.close()

"""Lengths of earlier batches for a new group with the same prompt, over HTTP and by the compatible routes."""

from openseer_core.ids import GroupId
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.length_estimate import estimate
from openseer_core.queue.siblings import prompt_digest
from tests.api.compat.stories import PROMPT, post
from tests.api.served import Served, prompts, results, served, serving_job


async def submitted(server: Served, batch: int, name: str = "g0") -> GroupSpec:
    spec = await server.store.spec(GroupId(batch, name))
    assert spec is not None
    return spec


async def longest_of(server: Served) -> int:
    """Runs a batch of one group to its end, acknowledges it and returns its longest response in tokens."""
    batch = await server.open()
    await server.upload(batch, prompts(1), seal=True)
    items = await server.until_complete(batch)
    await server.call("POST", f"/batches/{batch}/acknowledge", {"cursor": len(items)})
    return max(len(item["token_ids"]) for item in results(items))


async def test_a_repeated_prompt_is_expected_to_have_its_earlier_length() -> None:
    async with served(job=serving_job(speculation={"earlierResponses": 8})) as server:
        longest = await longest_of(server)
        batch = await server.open()
        assert await server.upload(batch, prompts(2)) == {"accepted": 2, "present": 0}
        again, fresh = await submitted(server, batch), await submitted(server, batch, "g1")
        assert (again.history, again.history_size) == (prompt_digest(again.prompt), 8)
        assert (again.longest_earlier, fresh.longest_earlier) == (longest, 0)
        assert again.priority == server.context.placement.policy.priority(again.view()) != fresh.priority
        assert estimate(await server.store.group_view(again.id)) == longest


async def test_earlier_batches_are_kept_only_if_the_job_asks_for_it() -> None:
    async with served() as server:
        await longest_of(server)
        batch = await server.open()
        await server.upload(batch, prompts(1))
        spec = await submitted(server, batch)
        assert (spec.history, spec.history_size, spec.longest_earlier) == ("", 0, 0)
        assert await server.store.longest_earlier([prompt_digest(spec.prompt)]) == [0]


async def test_groups_of_the_compatible_routes_keep_their_responses_too() -> None:
    async with served(job=serving_job(speculation={"earlierResponses": 2})) as server:
        answer = await post(server, "/generate", {"input_ids": PROMPT, "sampling_params": {"max_new_tokens": 9}})
        spec = await submitted(server, 1, "live-1")
        assert await server.store.longest_earlier([spec.history]) == [len(answer["output_ids"])]

"""Engines that sleep in stages, and throw their weights away: scripted ones on the reference store, in virtual time."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from openseer_core.weights.fleet_spec import MEMORY_PARTS, FleetSpec
from openseer_core.weights.publish import Canary, Source
from openseer_core.weights.rest import asleep, is_at_rest, woken
from openseer_core.worker.heartbeat import WeightsReport
from openseer_worker.scripted.text import scripted_scores
from openseer_worker.weights.hashing import digest
from tests.worker.fleet import Fleet, play
from tests.worker.weights.test_served import failing, versions

CANARY_TOKENS = [3, 1, 4, 1, 5]


async def change(fleet: Fleet, how: Callable[[FleetSpec], FleetSpec]) -> None:
    assert await fleet.store.swap_fleet_spec(how(await fleet.store.fleet_spec()))


async def discard(fleet: Fleet) -> None:
    """Sleep of level 2."""
    await change(fleet, lambda spec: asleep(spec, MEMORY_PARTS, fleet.now(), keep_weights=False))
    await at_rest(fleet)


async def wake(fleet: Fleet, *parts: str) -> None:
    await change(fleet, lambda spec: woken(spec, parts or MEMORY_PARTS, fleet.now()))
    await at_rest(fleet)


async def at_rest(fleet: Fleet) -> None:
    """Waits until all sleep as in the fleet spec; not at all where it says nothing."""
    spec = await fleet.store.fleet_spec()
    for _ in range(1000):
        if spec.rest is None or all(is_at_rest(spec, report) for report in await reported(fleet)):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("not at rest")


async def reported(fleet: Fleet) -> list[WeightsReport]:
    now = fleet.now()
    found = [status.heartbeat.weights for status in await fleet.store.workers() if status.is_fresh(now)]
    return [report for report in found if report is not None]


def loaded(fleet: Fleet) -> set[str]:
    return {engine.loaded for engine in fleet.engines.values()}


def test_a_trainers_order_thrown_away_loaded_awake(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await discard(fleet)
        assert {(report.version, report.freed) for report in await reported(fleet)} == {("", False)}
        claims = len(fleet.store.claimed)
        await wake(fleet, "weights")
        await fleet.publish(mode="keep")
        assert (await fleet.until("done")).participants == ("worker-0", "worker-1")
        assert loaded(fleet) == {"v1"}
        await asyncio.sleep(2.0)
        assert len(fleet.store.claimed) == claims
        await wake(fleet, "kv_cache")
        assert versions(await fleet.results(0)) == {("initial", "v1")}
        assert {(report.asleep, report.weights_awake, report.freed) for report in await reported(fleet)} == {
            (False, False, None)
        }

    play(tmp_path, story)


def test_weights_thrown_away_without_a_publish_are_loaded_from_their_source(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.publish(mode="keep")
        await fleet.until("done")
        await discard(fleet)
        await wake(fleet, "weights")
        await asyncio.sleep(2.0)
        assert loaded(fleet) == {"nothing"}
        await wake(fleet)
        await fleet.results(0)
        assert loaded(fleet) == {"v1"}

    play(tmp_path, story)


def test_a_worker_that_begins_in_a_stage_is_where_the_others_are(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await discard(fleet)
        await wake(fleet, "weights")
        await fleet.publish(mode="keep")
        await fleet.until("done")
        name = fleet.start(2)
        await asyncio.sleep(2.0)
        await at_rest(fleet)
        assert fleet.engines[name].loaded == "nothing"
        await discard(fleet)
        await wake(fleet)
        await fleet.results(0)
        await asyncio.sleep(1.0)
        assert loaded(fleet) == {"v1"}

    play(tmp_path, story)


def test_a_publish_that_fails_in_a_stage_leaves_the_weights_of_before(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await discard(fleet)
        await wake(fleet, "weights")
        fleet.engines["worker-1"].failures = 1
        await fleet.publish(mode="keep")
        assert "the disk is gone" in (await fleet.until("failed")).message
        assert loaded(fleet) == {"initial"}
        await wake(fleet)
        assert {chunk.version for result in await fleet.results(0) for chunk in result.chunks} == {"initial"}

    play(tmp_path, story)


def test_a_canary_of_weights_that_came_in_a_stage_is_scored_before_anything_is_claimed(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        content = digest(Path(fleet.weights("v1").path or ""))
        right = scripted_scores(content, CANARY_TOKENS)
        for version, logprobs in (("v1", right), ("v2", [score - 5.0 for score in right])):
            await discard(fleet)
            await wake(fleet, "weights")
            canary = Canary(token_ids=CANARY_TOKENS, logprobs=logprobs)
            source = Source(path=str(tmp_path / "v1"))
            await fleet.publish(version, mode="keep", canary=canary, source=source)
            await fleet.until("done")
            claims = len(fleet.store.claimed)
            await wake(fleet)
            await asyncio.sleep(3.0)
            if version == "v1":
                assert len(fleet.store.claimed) > claims
        assert len(fleet.store.claimed) == claims
        assert await failing(fleet, "canary's log-probabilities differ by") == ["worker-0", "worker-1"]

    play(tmp_path, story)


def test_whoever_is_still_waking_is_not_told_as_asleep(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        for parts in (("weights",), MEMORY_PARTS):
            await discard(fleet)
            for engine in fleet.engines.values():
                engine.waking = 5.0
            await change(fleet, lambda spec, parts=parts: woken(spec, parts, fleet.now()))
            while not all(engine.is_waking for engine in fleet.engines.values()):
                await asyncio.sleep(0.05)
            await discard(fleet)
            assert not any(engine.is_waking or engine.has_memory for engine in fleet.engines.values())

    play(tmp_path, story)

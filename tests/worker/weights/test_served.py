"""Weights transactions on the reference store with scripted engines, in virtual time."""

import asyncio
from pathlib import Path

import pytest

from openseer_core.errors import EngineError
from openseer_core.queue.messages import Result
from openseer_core.queue.states import Status
from openseer_core.weights.publish import Canary, Source
from openseer_core.weights.transaction import DrainWorkers, cancel
from openseer_worker.scripted.text import scripted_scores
from openseer_worker.weights.hashing import digest
from tests.worker.fleet import Fleet, play
from tests.worker.weights.made import write_weights

CANARY_TOKENS = [3, 1, 4, 1, 5]


def versions(results: list[Result]) -> set[tuple[str, ...]]:
    return {tuple(chunk.version for chunk in result.chunks) for result in results}


async def failing(fleet: Fleet, why: str) -> list[str]:
    """Workers that report an error with `text`."""
    reports = [(status.name, status.heartbeat.weights) for status in await fleet.store.workers()]
    return [name for name, report in reports if report is not None and why in report.error]


def test_drain_completes_the_old_batch_with_the_old_weights(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.publish(mode="drain")
        assert (await fleet.until("quiesce")).seconds["prefetch"] < 0.5
        await fleet.until("done")
        await fleet.submit(1, "v1")
        assert {chunk.version for status in await fleet.results(0) for chunk in status.chunks} == {"initial"}
        assert {chunk.version for status in await fleet.results(1) for chunk in status.chunks} == {"v1"}

    play(tmp_path, story)


def test_keep_continues_running_responses_on_the_new_weights(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.publish(mode="keep")
        transaction = await fleet.until("done", seconds=3)
        assert sum(transaction.seconds.values()) < 1.0
        results = await fleet.results(0)
        assert {result.status for result in results} == {Status.OK}
        assert versions(results) == {("initial", "v1")}
        assert {result.version for result in results} == {"v1"}

    play(tmp_path, story)


def test_keep_aborts_responses_that_are_too_stale(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.publish(mode="keep", max_staleness=0)
        await fleet.until("done", seconds=3)
        assert {result.status for result in await fleet.results(0)} == {Status.ABORTED}

    play(tmp_path, story)


def test_abort_ends_running_responses_and_keeps_their_tokens(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.publish(mode="abort")
        await fleet.until("done", seconds=3)
        results = await fleet.results(0)
        assert {result.status for result in results} == {Status.ABORTED}
        assert min(len(result.tokens) for result in results) > 50
        await fleet.submit(1, "v1")
        assert versions(await fleet.results(1)) == {("v1",)}

    play(tmp_path, story)


@pytest.mark.parametrize("phase", ["prefetch", "quiesce", "load"])
def test_a_worker_that_dies_mid_transaction_is_dropped_until_its_next_boot(tmp_path: Path, phase: str) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.engines["worker-1"].hangs = True
        await fleet.publish(mode="keep" if phase == "load" else "drain")
        await fleet.until(phase)
        fleet.kill("worker-1")
        await asyncio.sleep(0.5)
        fleet.start(1)
        transaction = await fleet.until("done")
        assert transaction.finished_at is not None
        results = await fleet.results(0)
        assert {result.status for result in results} == {Status.OK}
        await asyncio.sleep(2)
        assert {engine.loaded for engine in fleet.engines.values()} == {"v1"}

    play(tmp_path, story)


@pytest.mark.parametrize("phase", ["prefetch", "quiesce", "load", "commit"])
def test_a_worker_that_joins_mid_transaction_never_uses_other_weights(tmp_path: Path, phase: str) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.publish("v1", mode="keep")
        await fleet.until("done")
        await fleet.publish("v2", mode="keep")
        await fleet.until(phase)
        fleet.start(2)
        await fleet.until("done")
        await fleet.submit(1, "v2")
        await fleet.results(1)
        assert fleet.engines["worker-2"].loaded == "v2"
        spans = [[chunk.version for chunk in result.chunks] for result in await fleet.results(0)]
        assert all(span == sorted(span) for span in spans)

    play(tmp_path, story)


@pytest.mark.parametrize("mode", ["keep", "abort"])
def test_requests_claimed_after_the_order_are_given_back(tmp_path: Path, mode: str) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.store.delay = 1.5
        fleet.start(2)
        await asyncio.sleep(0.2)
        await fleet.publish(mode=mode, prefetch=False)
        await fleet.until("done")
        for result in await fleet.results(0):
            spans = [chunk.version for chunk in result.chunks]
            assert spans == sorted(spans)
            assert mode == "keep" or set(spans) <= {"initial"}

    play(tmp_path, story)


def test_a_failed_load_is_tried_again(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.engines["worker-1"].failures = 2
        await fleet.publish(mode="keep", retries=2)
        transaction = await fleet.until("done")
        assert (transaction.attempt, transaction.message) == (2, "worker-1: the disk is gone")

    play(tmp_path, story)


def test_a_permanently_failing_load_rolls_the_fleet_back(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.engines["worker-1"].failures = 1
        await fleet.publish(mode="keep")
        transaction = await fleet.until("failed")
        assert (transaction.waiting_for, transaction.message) == (("worker-1",), "worker-1: the disk is gone")
        results = await fleet.results(0)
        assert {result.status for result in results} == {Status.OK}
        assert versions(results) == {("initial", "initial")}
        await fleet.publish(mode="keep")
        await fleet.until("done")

    play(tmp_path, story)


def test_a_worker_that_cannot_roll_back_exits(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.engines["worker-1"].failures = 2
        await fleet.publish(mode="keep")
        transaction = await fleet.until("failed")
        assert transaction.replaced == ("worker-1",)
        with pytest.raises(EngineError, match="previous weights cannot be loaded again: the disk is gone"):
            await fleet.tasks["worker-1"]
        assert {result.status for result in await fleet.results(0)} == {Status.OK}

    play(tmp_path, story)


def test_a_hanging_worker_is_replaced(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.engines["worker-1"].hangs = True
        await fleet.publish(mode="keep", on_failure="replace", deadlines={"load": 5.0})
        transaction = await fleet.until("done")
        assert transaction.replaced == ("worker-1",)
        assert transaction.message == "worker-1: not done with load within 5 s"
        await fleet.tasks["worker-1"]
        assert fleet.actions[0] == DrainWorkers(("worker-1",))
        fleet.start(1)
        await fleet.results(0)
        assert fleet.engines["worker-1"].loaded == "v1"

    play(tmp_path, story)


def test_missing_weights_are_refused_before_a_worker_stops(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.publish(source=Source(path=str(tmp_path / "nowhere")), retries=1)
        transaction = await fleet.until("failed", seconds=3)
        assert transaction.attempt == 1
        assert "there is no folder" in transaction.message
        assert versions(await fleet.results(0)) == {("initial",)}

    play(tmp_path, story)


@pytest.mark.parametrize("on_failure", ["abort", "replace"])
def test_weights_that_differ_from_the_publishers_are_never_served(tmp_path: Path, on_failure: str) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.weights("v1")
        logprobs = scripted_scores("other content", CANARY_TOKENS)
        canary = Canary(token_ids=CANARY_TOKENS, logprobs=logprobs)
        await fleet.publish(mode="keep", canary=canary, on_failure=on_failure)
        transaction = await fleet.until("failed")
        assert "the canary's log-probabilities differ by" in transaction.message
        assert "v1" not in fleet.store.claimed

    play(tmp_path, story)


def test_a_matching_canary_is_reported_also_by_later_workers(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.weights("v1")
        canary = Canary(token_ids=CANARY_TOKENS, logprobs=scripted_scores(digest(tmp_path / "v1"), CANARY_TOKENS))
        await fleet.publish(mode="keep", canary=canary)
        await fleet.until("done")
        fleet.start(2)
        await asyncio.sleep(2)
        reports = [status.heartbeat.weights for status in await fleet.store.workers()]
        assert [(report.version, report.difference) for report in reports if report is not None] == [("v1", 0.0)] * 3
        write_weights(tmp_path / "v1", "written over")
        fleet.start(3)
        await fleet.results(0)
        await asyncio.sleep(5)
        last = (await fleet.store.workers())[-1].heartbeat.weights
        assert last is not None
        assert last.version == "initial"
        assert "v1 has other weights: found digest" in last.error
        assert not fleet.tasks["worker-3"].done()

    play(tmp_path, story)


def test_the_fleet_does_not_roll_back_to_an_overwritten_folder(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await fleet.publish("v1", mode="keep")
        await fleet.until("done")
        write_weights(tmp_path / "v1", "v2")
        fleet.engines["worker-1"].failures = 1
        await fleet.publish("v2", mode="keep")
        assert (await fleet.until("failed")).replaced == ("worker-0", "worker-1")
        for name in ("worker-0", "worker-1"):
            with pytest.raises(EngineError, match="v1 has other weights: found digest"):
                await fleet.tasks[name]
        fleet.start(2)
        await asyncio.sleep(5)
        assert fleet.engines["worker-2"].loaded == "initial"
        write_weights(tmp_path / "v1", "v1")
        await fleet.results(0)
        assert fleet.engines["worker-2"].loaded == "v1"

    play(tmp_path, story)


@pytest.mark.parametrize("prefetch", [True, False])
def test_weights_of_another_digest_than_the_publishers_are_refused(tmp_path: Path, prefetch: bool) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.weights("v1")
        found, needed = digest(tmp_path / "v1"), "0" * 64
        source = Source(path=str(tmp_path / "v1"), digest=needed)
        await fleet.publish(mode="keep", source=source, prefetch=prefetch)
        transaction = await fleet.until("failed")
        assert f"v1 has other weights: found digest {found}, needed: {needed}" in transaction.message
        assert {engine.loaded for engine in fleet.engines.values()} == {"initial"}
        await fleet.publish(mode="keep", source=Source(path=str(tmp_path / "v1"), digest=found), prefetch=prefetch)
        await fleet.until("done")

    play(tmp_path, story)


def test_the_first_loader_fixes_the_digest_of_weights_published_at_rest(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await rest(fleet, "sleep")
        await asyncio.sleep(1.5)
        await fleet.publish(mode="keep")
        await fleet.until("done")
        await rest(fleet, None)
        await fleet.results(0)
        source = (await fleet.store.fleet_spec()).source
        assert source is not None
        assert source.digest == digest(tmp_path / "v1")
        write_weights(tmp_path / "v1", "what will be v2")
        fleet.start(2)
        await fleet.submit(1, "v1")
        await fleet.results(1)
        assert await failing(fleet, "has other weights: found digest") == ["worker-2"]
        assert fleet.engines["worker-2"].loaded == "initial"

    play(tmp_path, story)


@pytest.mark.parametrize("at_rest", [False, True])
def test_other_bytes_loaded_before_the_digest_was_known_are_never_served(tmp_path: Path, at_rest: bool) -> None:
    async def story(fleet: Fleet) -> None:
        if at_rest:
            await rest(fleet, "sleep")
            await asyncio.sleep(1.5)
            await fleet.publish(mode="keep")
            await fleet.until("done")
            fleet.controller.cancel()  # it reads all loads at once
            await rest(fleet, None)
        else:
            fleet.engines["worker-1"].hangs = True
            await fleet.publish(mode="keep", prefetch=False)
            await fleet.until("load")
        await asyncio.sleep(2.0)
        write_weights(tmp_path / "v1", "other bytes")
        fleet.start(2)
        await asyncio.sleep(2.0)
        assert fleet.engines["worker-2"].loaded == "v1"
        assert "v1" not in fleet.store.claimed
        if at_rest:
            fleet.controller = asyncio.create_task(fleet.control())
        else:
            fleet.kill("worker-1")
            await fleet.until("done")
        await fleet.submit(1, "v1")
        workers = {chunk.worker.partition("#")[0] for result in await fleet.results(1) for chunk in result.chunks}
        assert workers == ({"worker-0", "worker-1"} if at_rest else {"worker-0"})
        assert await failing(fleet, "v1 has other weights: found digest") == ["worker-2"]

    play(tmp_path, story)


def test_a_cancelled_load_is_rolled_back(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.engines["worker-1"].hangs = True
        await fleet.publish(mode="keep")
        await fleet.until("load")
        fleet_spec = cancel(await fleet.store.fleet_spec(), fleet.now())
        assert await fleet.store.swap_fleet_spec(fleet_spec)
        fleet.kill("worker-1")
        transaction = await fleet.until("failed")
        assert transaction.message.startswith("aborted by request")
        assert versions(await fleet.results(0)) == {("initial", "initial")}

    play(tmp_path, story)


async def rest(fleet: Fleet, how: str | None) -> None:
    fleet_spec = await fleet.store.fleet_spec()
    update = {"rest": how, "revision": fleet_spec.revision + 1, "rest_since": fleet.now()}
    assert await fleet.store.swap_fleet_spec(fleet_spec.model_copy(update=update))


def test_a_worker_sleeps_without_requests_and_wakes_with_new_weights(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await rest(fleet, "sleep")
        await asyncio.sleep(1.5)
        sleepers = [
            status
            for status in await fleet.store.workers()
            if status.heartbeat.weights and status.heartbeat.weights.asleep
        ]
        assert [(status.name, status.inflight) for status in sleepers] == [("worker-0", 0), ("worker-1", 0)]
        claims = len(fleet.store.claimed)
        await fleet.publish(mode="keep")
        assert (await fleet.until("done")).participants == ()
        await asyncio.sleep(2)
        assert {engine.loaded for engine in fleet.engines.values()} == {"initial"}
        assert len(fleet.store.claimed) == claims
        await rest(fleet, None)
        assert versions(await fleet.results(0)) == {("initial", "v1")}
        reports = [status.heartbeat.weights for status in await fleet.store.workers()]
        assert not [report for report in reports if report is None or report.asleep]

    play(tmp_path, story)


def test_a_stopping_fleet_gives_back_all_requests(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await rest(fleet, "stop")
        await asyncio.sleep(1.5)
        assert [status.inflight for status in await fleet.store.workers()] == [0, 0]
        await rest(fleet, None)
        await fleet.results(0)

    play(tmp_path, story)

"""The tail of a batch on the reference store and scripted engines, in virtual time."""

import asyncio

from tests.worker.test_loop import SIZE, Scene, job, play


async def inflight(scene: Scene, index: int) -> int:
    """Requests leased to a worker."""
    return next(status.inflight for status in await scene.store.workers() if status.name == f"worker-{index}")


def test_the_tail_of_a_full_worker_is_spread_over_the_idle_ones() -> None:
    async def scenario() -> None:
        scene = Scene(job(slots=512, quantumTokens=32), [[380] * SIZE] * 8 + [[380]])
        await scene.submit()
        scene.start(0)
        await asyncio.sleep(0.5)
        assert await inflight(scene, 0) == 33
        for index in range(1, 16):
            scene.start(index)
        await asyncio.sleep(1.5)
        shares = [await inflight(scene, index) for index in range(16)]
        assert sum(shares) == 33
        assert max(shares) <= 6
        await scene.finish()
        assert max(len(result.chunks) for result in await scene.results()) <= 3

    play(scenario)

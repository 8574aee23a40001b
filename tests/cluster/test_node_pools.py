"""A pool of GPU nodes with a real autoscaler grows for pending workers and shrinks before the batch ends."""

from collections.abc import AsyncIterator

import pytest

from benchmarks.support.control_plane import MissingProgramsError
from tests.cluster.support.node_pools import NodePools, PlayedBatch, find_autoscaler, node_pools

pytestmark = [pytest.mark.cluster, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
async def pools() -> AsyncIterator[NodePools]:
    try:
        autoscaler = find_autoscaler()
    except MissingProgramsError as error:
        pytest.skip(str(error))
    if autoscaler is None:
        pytest.skip("no karpenter-kwok: cluster/cluster.sh prepare builds it")
    async with node_pools(autoscaler) as found:
        yield found


async def test_nodes_are_added_for_workers_and_removed_in_the_tail(pools: NodePools) -> None:
    assert await pools.nodes() == set()
    await pools.submit(replicas=3)

    async def all_run() -> bool:
        return len(await pools.workers()) == 3

    await pools.until("each worker runs, on a node that was made for it", all_run)
    workers = await pools.workers()
    assert {worker.node for worker in workers} == await pools.nodes()
    assert len({worker.node for worker in workers}) == 3
    early, other, last = workers

    async with PlayedBatch(pools.url, workers) as batch:

        async def all_stamped() -> bool:
            return await pools.stamped() == {worker.uid for worker in workers}

        await pools.until("every busy worker is stamped", all_stamped)
        for worker in (early, other):
            await batch.finish(worker.name, idle_seconds=7.0, busy_seconds=20.0)

        async def only_the_last_node_is_left() -> bool:
            return await pools.nodes() == {last.node}

        await pools.until("nodes without a worker are removed", only_the_last_node_is_left)
        counts = await batch.progress()
        assert (counts.closed, counts.requests) == (2, 3)
        assert await pools.workers() == [last]
        assert await pools.stamped() == {last.uid}
        for worker in (early, other):
            await batch.leave(worker.name)

        await batch.finish(last.name, idle_seconds=1.0, busy_seconds=90.0)

        async def gpu_time_is_known() -> bool:
            return await pools.metric('openseer_job_gpu_seconds_total{job="batch",namespace="lab",state="busy"}') == 130

        await pools.until("the metric counts the last response", gpu_time_is_known)
        await pools.end_driver(await batch.progress())

        async def complete() -> bool:
            return (await pools.status()).get("reason") == "Complete"

        await pools.until("the job is complete", complete)
        assert (await pools.status())["gpuSeconds"] == {"idle": 15, "busy": 130}

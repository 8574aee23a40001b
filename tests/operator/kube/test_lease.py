"""Two replicas and one lease, against a real API server."""

import asyncio
import uuid

import pytest

from openseer_operator.kube import lease
from openseer_operator.kube.api import Api
from openseer_operator.kube.lease import LEASE_SECONDS, RETRY_SECONDS, Elector

pytestmark = [pytest.mark.cluster]


@pytest.fixture
def long_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that expires in no test."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 600.0)


def electors(api: Api, name: str = "") -> tuple[Elector, Elector]:
    name = name or f"lease-{uuid.uuid4().hex[:8]}"
    return Elector(api, "default", name, "one"), Elector(api, "default", name, "two")


async def held(elector: Elector, seconds: float) -> bool:
    """Whether the replica leads within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await elector.acquire()
    except TimeoutError:
        return False
    return True


async def test_one_of_two_concurrent_candidates_leads(api: Api, long_lease: None) -> None:
    waiting = [asyncio.create_task(held(elector, 120.0)) for elector in electors(api)]
    leads, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in leads] == [True]
    (other,) = others
    await asyncio.sleep(1.5 * RETRY_SECONDS)  # the other candidate has asked again
    assert not other.done()
    other.cancel()


async def test_a_released_lease_is_taken_over_at_once(api: Api, long_lease: None) -> None:
    first, second = electors(api)
    await first.acquire()
    waiting = asyncio.create_task(held(second, 120.0))
    await asyncio.sleep(RETRY_SECONDS / 2)
    await first.release()
    assert await waiting  # long before its expiry
    assert (first.leads, second.leads) == (False, True)


@pytest.mark.slow
async def test_a_dead_holders_lease_is_taken_after_its_expiry_only(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 3.0  # never renewed, so the speed of the machine has no effect
    monkeypatch.setattr(lease, "LEASE_SECONDS", seconds)
    first, second = electors(api)
    await first.acquire()
    start = asyncio.get_running_loop().time()
    assert await held(second, 120.0)
    assert asyncio.get_running_loop().time() - start >= seconds


@pytest.mark.slow
async def test_a_holder_that_renews_keeps_the_lease(api: Api) -> None:
    first, second = electors(api)
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    assert not await held(second, LEASE_SECONDS + 1.5 * RETRY_SECONDS)  # it has asked after the lease's seconds
    assert first.leads
    assert first.late() == ""
    holding.cancel()


async def test_a_holder_whose_lease_was_taken_stops_leading(api: Api) -> None:
    name = f"lease-{uuid.uuid4().hex[:8]}"
    first, second = electors(api, name)
    await first.acquire()
    await api.delete("Lease", "default", name)
    assert await held(second, 120.0)
    assert first.leads
    await asyncio.wait_for(first.hold(), 120.0)
    assert (first.leads, second.leads) == (False, True)

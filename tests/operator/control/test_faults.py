"""The whole process during outages of the API server, and its namespaces; without nodes pods stay pending."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from openseer_operator.kube.api import Api
from openseer_operator.kube.lease import LEASE_SECONDS, RENEW_DEADLINE_SECONDS
from tests.operator.control_plane import ControlPlane
from tests.operator.whole_process import PATIENCE_SECONDS, components, operator, submit, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
JOBS = "/apis/openseer.dev/v1alpha1/namespaces/default/rolloutjobs"
CATCH_UP_SECONDS = 180.0
"""kopf tries a watch that broke again after 0.5 to 21 s, ever more seldom while the server is away."""


@pytest.fixture(scope="module")
def own_plane(server_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server of this module alone, which its tests may stop."""
    with ControlPlane(tmp_path_factory.mktemp("own"), server_programs) as found:
        yield found


@pytest.fixture
def plane(own_plane: ControlPlane) -> Iterator[ControlPlane]:
    """That server; a test may stop it. After the test it serves again and has no jobs."""
    yield own_plane
    own_plane.serve_again()
    own_plane.request(JOBS, method="DELETE")


@pytest.fixture
async def own_api(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    client = await Api.connect()
    yield client
    await client.close()


async def until_pods(api: Api, job: str, *wanted: str, seconds: float = PATIENCE_SECONDS) -> None:
    async def there() -> bool:
        return await components(api, job) == set(wanted)

    await until(there, seconds)


async def test_an_operator_of_one_namespace_acts_only_there(api: Api, kubeconfig: Path, namespace: str) -> None:
    elsewhere = await submit(api, watched=False, workers={"replicas": 1})
    async with operator(kubeconfig, 18190, OPENSEER_WATCH_NAMESPACES=namespace, OPENSEER_LEASE="namespaced"):
        job = await submit(api, namespace, workers={"replicas": 1})

        async def there() -> bool:
            return await components(api, job, namespace) == {"driver", "worker-0"}

        await until(there)
        await asyncio.sleep(1.0)
        assert await components(api, elsewhere) == set()
        found = await api.get("RolloutJob", "default", elsewhere)
        assert found["status"] == {"observedGeneration": -1}  # the API server's default for a new job


@pytest.mark.parametrize("fault", ["crash", "silence"])
async def test_an_api_outage_shorter_than_the_lease_has_no_effect(
    own_api: Api, plane: ControlPlane, fault: str
) -> None:
    # The server's restart takes seconds, more on a busy machine, and counts too.
    async with operator(plane.kubeconfig, 18191, lease_seconds=180.0) as process:
        job = await submit(own_api, workers={"replicas": 1})
        await until_pods(own_api, job, "driver", "worker-0")
        if fault == "crash":
            plane.stop()
            await asyncio.sleep(0.5)
            plane.start()
        else:
            plane.freeze()
            await asyncio.sleep(RENEW_DEADLINE_SECONDS / 2)
            plane.unfreeze()
        await own_api.merge("RolloutJob", "default", job, {"spec": {"workers": {"replicas": 3}}})
        await own_api.delete("Pod", "default", f"{job}-driver", at_once=True)
        await until_pods(own_api, job, "driver", "worker-0", "worker-1", "worker-2", seconds=CATCH_UP_SECONDS)
        assert process.returncode is None


@pytest.mark.parametrize("fault", ["crash", "silence"])
async def test_an_operator_without_its_lease_exits_in_time_and_another_continues(
    own_api: Api, plane: ControlPlane, fault: str
) -> None:
    lease = f"lost-by-{fault}"
    async with operator(plane.kubeconfig, 18192, OPENSEER_LEASE=lease) as process:
        job = await submit(own_api, workers={"replicas": 1})
        await until_pods(own_api, job, "driver", "worker-0")
        async with operator(plane.kubeconfig, 18193, OPENSEER_LEASE=lease) as other:
            await until(partial(_is_ready, 18193))
            begin = time.monotonic()
            (plane.stop if fault == "crash" else plane.freeze)()
            assert await asyncio.wait_for(process.wait(), 60.0) == 1
            # It no longer leads when another may: until its exit it only closes connections.
            assert time.monotonic() - begin < RENEW_DEADLINE_SECONDS + 2 * LEASE_SECONDS
            (plane.start if fault == "crash" else plane.unfreeze)()
            await own_api.merge("RolloutJob", "default", job, {"spec": {"workers": {"replicas": 2}}})
            await until_pods(own_api, job, "driver", "worker-0", "worker-1")
            assert other.returncode is None


async def _is_ready(port: int) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as reply:
        return reply.status == 200


async def test_an_operator_without_its_lease_stops_a_begun_reconcile_step(own_api: Api, plane: ControlPlane) -> None:
    many = 1000
    async with operator(plane.kubeconfig, 18194) as process:
        job = await submit(own_api, workers={"replicas": many})

        async def begun() -> bool:
            return len(await components(own_api, job)) > 10

        await until(begun)
        plane.freeze()
        await asyncio.sleep(RENEW_DEADLINE_SECONDS + 1.0)
        plane.unfreeze()
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 1
        assert len(await components(own_api, job)) < many

"""The uninstall hook deletes all jobs before the operator, or names the remaining ones."""

import asyncio
from typing import Any

import pytest

from openseer_operator.kube.api import Api
from openseer_operator.uninstall import JobsLeftError, delete_jobs

pytestmark = [pytest.mark.cluster]


async def submit(api: Api, namespace: str, name: str, *finalizers: str) -> None:
    body: dict[str, Any] = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": name, "namespace": namespace, "finalizers": list(finalizers)},
        "spec": {"model": {"path": "m"}, "prompts": {"path": "p.jsonl"}},
    }
    await api.create("RolloutJob", namespace, body)


async def test_jobs_are_deleted_and_finalizers_are_waited_for(api: Api, namespace: str) -> None:
    await submit(api, namespace, "plain")
    await submit(api, namespace, "held", "openseer.dev/store")
    deletion = asyncio.create_task(delete_jobs(api, (namespace,), 120.0))
    async with asyncio.timeout(60.0):
        while not (await api.get("RolloutJob", namespace, "held"))["metadata"].get("deletionTimestamp"):
            await asyncio.sleep(0.1)
    assert not deletion.done()
    await api.merge("RolloutJob", namespace, "held", {"metadata": {"finalizers": []}})
    await deletion
    assert [page async for page in api.pages("RolloutJob", (namespace,))] == [[]]


async def test_jobs_whose_finalizer_remains_are_named(api: Api, namespace: str) -> None:
    await submit(api, namespace, "held", "openseer.dev/store")
    with pytest.raises(JobsLeftError, match=f"1 jobs still exist after 0 s: {namespace}/held"):
        await delete_jobs(api, (namespace,), 0.0)


async def test_a_namespace_without_jobs_is_finished_at_once(api: Api, namespace: str) -> None:
    await delete_jobs(api, (namespace,), 0.0)
    assert api.calls["DELETE", "RolloutJob", 200] == 0

"""One embedded Redis for all store tests, and both stores behind one interface with a clock that tests set."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from openseer_store.embedded import EmbeddedRedis
from openseer_store.memory import MemoryStore
from openseer_store.port import Store
from openseer_store.redis_store import RedisStore
from tests.store.builders import Clock

_jobs = itertools.count()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an embedded server, one for the whole test session."""
    server = EmbeddedRedis(Path(tmp_path_factory.mktemp("redis")))
    with asyncio.Runner() as runner:
        yield runner.run(server.__aenter__())
        runner.run(server.__aexit__(None, None, None))


@pytest.fixture
def job() -> str:
    """A job name that no other test uses."""
    return f"job-{next(_jobs)}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of store of a test; the server is started here, before the test has an event loop."""
    if request.param == "redis":
        request.getfixturevalue("redis_url")
    return request.param


@pytest.fixture
async def store(kind: str, request: pytest.FixtureRequest, clock: Clock, job: str) -> AsyncIterator[Store]:
    """The store of a test; each test that uses this fixture runs once on each kind of store."""
    if kind == "memory":
        yield MemoryStore(clock)
        return
    store = RedisStore(request.getfixturevalue("redis_url"), job, clock=clock, retry_seconds=5.0)
    yield store
    await store.close()

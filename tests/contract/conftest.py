"""An embedded Redis for the tests that read the store of an earlier commit."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from openseer_store.embedded import EmbeddedRedis


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an embedded Redis, one for the whole test session."""
    server = EmbeddedRedis(Path(tmp_path_factory.mktemp("redis")))
    with asyncio.Runner() as runner:
        yield runner.run(server.__aenter__())
        runner.run(server.__aexit__(None, None, None))

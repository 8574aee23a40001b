"""A store with a full disk: depending on its fsync, it refuses writes until there is room, or it ends."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from openseer_core.errors import StoreError, StoreUnavailableError
from openseer_store.embedded import EmbeddedRedis
from openseer_store.redis_link import RedisLink

pytestmark = pytest.mark.redis

PIECE = bytes(2**18)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB, of which a file named ballast takes 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted only by root, where mounts are allowed")
    (place / "ballast").write_bytes(bytes(2**21))
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def fill(link: RedisLink) -> None:
    """Writes until the server reports a full disk, which may be some syncs after the disk is full."""
    for number in range(2000):
        await link.command("SET", number % 32, PIECE)
        await asyncio.sleep(0.05)


async def test_calls_wait_while_the_disk_is_full_and_continue_afterwards(small_disk: Path) -> None:
    async with EmbeddedRedis(small_disk / "store", "everysec") as url:
        hasty, patient = RedisLink(url, "{any}", 0.0), RedisLink(url, "{any}")
        with pytest.raises(StoreUnavailableError, match="cannot write to its disk: free some space"):
            await fill(hasty)
        writing = asyncio.create_task(patient.command("SET", "more", b"1"))
        await asyncio.sleep(0.2)
        assert not writing.done()
        (small_disk / "ballast").unlink()
        assert await writing == b"OK"
        await hasty.close()
        await patient.close()


async def test_a_store_that_syncs_always_ends_on_a_full_disk_with_a_reason(small_disk: Path) -> None:
    server = EmbeddedRedis(small_disk / "store", "always")
    async with server as url:
        link = RedisLink(url, "{any}", 0.0)
        with pytest.raises(StoreUnavailableError):
            await fill(link)
        with pytest.raises(StoreError, match=r"ended with code 1: (?s:.*)Can't recover from AOF write error"):
            await server.watch()
        await link.close()

"""The embedded server: it keeps its data, ends with its parent process, and does not share its folder."""

import asyncio
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from openseer_core.errors import StoreError
from openseer_store import embedded
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis, find_server
from openseer_store.redis_link import RedisLink
from tests.store.builders import ANN, delta, extend, group, query, tokens

pytestmark = pytest.mark.redis
END_SECONDS = 60.0
"""Longest wait for a server that ends."""

PARENT = """
import asyncio, sys
from pathlib import Path
from openseer_store.embedded import EmbeddedRedis

async def main():
    server = EmbeddedRedis(Path(sys.argv[1]))
    async with server as url:
        print(url, server.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
async def slow_log(tmp_path: Path) -> Path:
    """A store's folder whose log takes a slow server about 5 s to load."""
    async with EmbeddedRedis(tmp_path / "store") as url:
        link = RedisLink(url, "{any}")
        for number in range(5000):
            await link.command("SET", number, "")
        await link.close()
    return tmp_path / "store"


@pytest.fixture
def slow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server that takes 1 ms for each key that it loads; it replaces the installed one."""
    script = tmp_path / "slow-redis"
    script.write_text(f'#!/bin/sh\nexec {find_server()} "$@" --key-load-delay 1000\n')
    script.chmod(0o755)
    monkeypatch.setattr(embedded, "find_server", lambda: script)
    return script


async def test_a_start_waits_for_a_server_that_loads_and_reports_the_load(
    slow_log: Path, slow_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def loads() -> None:
        told.append("loads")
        monkeypatch.setattr(embedded, "START_SECONDS", 0.0)  # a limit that has passed already

    async with EmbeddedRedis(slow_log, on_loading=loads) as url:
        link = RedisLink(url, "{any}")
        assert await link.command("EXISTS", 4999) == 1
        await link.close()
    assert told == ["loads"]


async def test_a_call_waits_for_a_server_while_it_loads(slow_log: Path, slow_server: Path) -> None:
    """The limit of the call is a small part of the time of the load."""
    socket = slow_log.parent / "s"
    server = await asyncio.create_subprocess_exec(
        *(slow_server, "--port", "0", "--unixsocket", socket, "--dir", slow_log, "--appendonly", "yes"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    while not socket.exists():
        await asyncio.sleep(0.01)
    store = await open_store(f"unix://{socket}", "job", retry_seconds=0.3, loading_seconds=600.0)
    assert (await store.progress(0)).requests == 0
    await store.close()
    server.kill()
    await server.wait()


async def test_written_data_are_kept_over_a_clean_restart(tmp_path: Path) -> None:
    for number in (1, 2):
        async with EmbeddedRedis(tmp_path / "with space") as url:
            store = await open_store(url, "job")
            assert await store.submit([group(f"{number}", 1)]) == 1
            assert (await store.progress(0)).groups == number
            await store.close()


async def test_no_port_is_opened_and_no_folder_or_process_is_left(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    async with server as url:
        socket = Path(url.removeprefix("unix://"))
        assert modes(socket.parent) == [stat.S_IFDIR | 0o700]
        link = RedisLink(url, "{any}")
        assert await link.command("CONFIG", "GET", "port") == [b"port", b"0"]
        await link.close()
        pid = server.pid
    assert modes(socket.parent) == []
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def modes(folder: Path) -> list[int]:
    return [folder.stat().st_mode] if folder.exists() else []


async def test_a_folder_in_use_is_refused_with_its_holder(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path):
        second = EmbeddedRedis(tmp_path, lock_seconds=0.1)
        with pytest.raises(StoreError, match=rf"in use by another run \(process {os.getpid()}\)"):
            await second.__aenter__()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
async def test_the_server_ends_when_its_parent_is_killed_and_loses_nothing(tmp_path: Path) -> None:
    command = (sys.executable, "-c", PARENT, str(tmp_path))
    parent = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    url, pid = (await parent.stdout.readline()).decode().split()
    store = await open_store(url, "job")
    await store.submit([group("a", 1)])
    [claim] = await store.claim(ANN, query())
    await extend(store, ANN, [delta(claim, 5)])
    await store.close()
    parent.kill()
    await parent.wait()
    await until_ended(int(pid))
    async with EmbeddedRedis(tmp_path) as again:
        store = await open_store(again, "job")
        assert (await store.record(claim.request)).tokens == tokens(0, 5)
        await store.close()


async def until_ended(pid: int) -> None:
    async with asyncio.timeout(END_SECONDS):
        while lives(pid):
            await asyncio.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether the process runs; a zombie counts as ended, because it may have no parent that reaps it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it may end while it is read
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


async def test_a_long_temporary_folder_still_gives_a_short_socket_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    async with EmbeddedRedis(tmp_path / "store") as url:
        assert len(url) < 100


async def test_a_server_that_cannot_start_is_an_error_with_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_text("this is no append-only file\n")
    (tmp_path / "appendonlydir").write_text("nor is this a folder")  # where Redis 7 keeps it
    with pytest.raises(StoreError, match=r"ended with code [1-9]"):
        await EmbeddedRedis(tmp_path).__aenter__()


async def test_only_the_main_thread_may_start_the_server(tmp_path: Path) -> None:
    def start() -> None:
        asyncio.run(EmbeddedRedis(tmp_path).__aenter__())

    with pytest.raises(StoreError, match="main thread"):
        await asyncio.to_thread(start)


def test_a_server_that_is_too_old_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("redis-server", "5.0.3"), ("valkey-server", "8.1.0")):
        server = tmp_path / name
        server.write_text(f"#!/bin/sh\necho 'Server v={version} sha=0'\n")
        server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert embedded.find_server() == tmp_path / "valkey-server"

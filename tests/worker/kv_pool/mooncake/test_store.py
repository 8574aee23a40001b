"""Blocks in a real store of Mooncake, also after deaths of its processes."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from openseer_worker.kv_pool.blocks import BadBlockError
from openseer_worker.kv_pool.mooncake import watching
from openseer_worker.kv_pool.mooncake.client import MooncakeBlocks
from openseer_worker.kv_pool.mooncake.servers import PORTS, free_ports
from openseer_worker.kv_pool.mooncake.watching import MooncakeSweeper, usage
from openseer_worker.kv_pool.places import block_name
from tests.worker.kv_pool.mooncake.pool import HOST, Pool, running, why_not
from tests.worker.kv_pool.waiting import eventually, stop

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.timeout(300)]

PLACE, LAYOUT, SIZE = "1/aa/bb", "layout", 4096
HASHES = [f"{number:02x}" for number in range(5)]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with running(tmp_path_factory.mktemp("pool")) as pool:
        yield pool


@pytest.fixture(scope="module")
def store(pool: Pool) -> MooncakeBlocks:
    return MooncakeBlocks(pool.master)


def rows(count: int, fill: int = 0, size: int = SIZE) -> list[memoryview]:
    return [memoryview(bytearray(bytes([fill + number]) * size)) for number in range(count)]


def names(hashes: list[str], rank: int = 0) -> list[str]:
    return [block_name(block, LAYOUT, rank) for block in hashes]


def put(store: MooncakeBlocks, place: str, count: int, rank: int = 0) -> list[bool]:
    return list(store.write(place, names(HASHES[:count], rank), rows(count, fill=1), begins=True))


def test_blocks_are_read_as_written_and_written_once(store: MooncakeBlocks) -> None:
    assert put(store, PLACE, 3) == [True] * 3
    assert put(store, PLACE, 4) == [False] * 3 + [True]
    assert store.count_present(PLACE, HASHES, LAYOUT, 1) == 4
    into = rows(4)
    assert len(list(store.read(PLACE, names(HASHES[:4]), into))) == 4
    assert into == rows(4, fill=1)


def test_a_block_counts_once_all_ranks_have_stored_their_part(store: MooncakeBlocks) -> None:
    put(store, "1/aa/ranks", 3, rank=0)
    put(store, "1/aa/ranks", 2, rank=1)
    assert store.count_present("1/aa/ranks", HASHES, LAYOUT, 2) == 2


def test_blocks_before_a_missing_one_are_read(store: MooncakeBlocks) -> None:
    put(store, "1/aa/gone", 2)
    reading = store.read("1/aa/gone", names(HASHES[:3]), rows(3))
    assert [next(reading), next(reading)] == [None, None]
    with pytest.raises(OSError, match="did not return it"):
        next(reading)


@pytest.mark.parametrize("wrong", ["a byte", "its size"])
def test_a_corrupted_block_is_reported(store: MooncakeBlocks, pool: Pool, wrong: str) -> None:
    place = f"1/aa/{wrong[-4:]}"
    put(store, place, 1)
    key = f"{place}/{names(HASHES[:1])[0]}"
    client = store._link.client()  # pyright: ignore[reportPrivateUsage]
    value = bytearray(client.get(key))
    value[-1] ^= 1
    assert client.batch_remove([key], True) == [0]
    assert client.put(key, bytes(value if wrong == "a byte" else value[:-1])) == 0
    with pytest.raises(BadBlockError):
        list(store.read(place, names(HASHES[:1]), rows(1)))


def test_a_group_and_a_version_are_removed_as_wholes(store: MooncakeBlocks) -> None:
    for place in ("1/old/a", "1/old/b", "1/new/a", "1/new/ab"):
        put(store, place, 2)
    assert store.remove(["1/old", "1/new/a"]) == 6
    assert store.count_present("1/new/ab", HASHES, LAYOUT, 1) == 2


def test_ended_groups_are_removed_only_for_lack_of_room(
    store: MooncakeBlocks, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [f"1/over/{number}" for number in range(4)]
    for place in places:
        put(store, place, 1)
    sweeper = MooncakeSweeper(pool.master)
    assert sweeper.sweep(places, []) == ()
    monkeypatch.setattr(watching, "FULL_SHARE", 0.0)
    assert list(sweeper.sweep(places, [])) == places[:2]
    assert [store.count_present(place, HASHES, LAYOUT, 1) for place in places] == [0, 0, 1, 1]


def test_a_full_store_accepts_new_blocks_within_its_bytes(store: MooncakeBlocks, pool: Pool) -> None:
    size, most = 2**25, usage(pool.master).capacity
    count = 3 * most // (2 * size)
    for number in range(count):
        name = block_name(f"{number:04x}", LAYOUT, 0)
        eventually(lambda name=name: _kept(store, name, size))
        assert usage(pool.master).used <= most
    assert store.count_present("1/full/g", [f"{count - 1:04x}"], LAYOUT, 1) == 1


def _kept(store: MooncakeBlocks, name: str, size: int) -> bool:
    try:
        return bool(list(store.write("1/full/g", [name], rows(1, size=size), begins=True)))
    except OSError:  # the removal is not finished yet
        return False


def test_a_hanging_master_is_restarted_and_waiting_callers_return(store: MooncakeBlocks, pool: Pool) -> None:
    before = pool.pid("mooncake_master")
    stop(before)
    ended = threading.Event()

    def ask() -> None:
        try:
            store.count_present(PLACE, HASHES, LAYOUT, 1)
        except OSError:
            ended.set()

    threading.Thread(target=ask, daemon=True).start()
    eventually(ended.is_set)
    eventually(lambda: pool.is_up and pool.pid("mooncake_master") not in (0, before))


@pytest.mark.parametrize("name", ["mooncake_master", "mooncake_client"])
def test_after_a_death_both_restart_empty_and_the_client_continues(
    store: MooncakeBlocks, pool: Pool, name: str
) -> None:
    place, before = f"1/death/{name[-6:]}", pool.pid("mooncake_master")
    eventually(lambda: _put(store, place))
    os.kill(pool.pid(name), signal.SIGKILL)
    eventually(lambda: pool.is_up and pool.pid("mooncake_master") not in (0, before))
    eventually(lambda: _count(store, place) == 0)
    eventually(lambda: _put(store, place))
    assert _count(store, place) == 2


def _put(store: MooncakeBlocks, place: str) -> bool:
    try:
        return bool(put(store, place, 2))
    except OSError:  # the connection is still that to the dead process
        return False


def _count(store: MooncakeBlocks, place: str) -> int:
    try:
        return store.count_present(place, HASHES, LAYOUT, 1)
    except OSError:
        return -1


def test_a_killed_pool_process_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as pool:
        pids = [pool.pid(name) for name in ("mooncake_master", "mooncake_client")]
        pool.process.kill()
        eventually(lambda: not any(_runs(pid) for pid in pids))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_with_hanging_pool_calls_exits_at_once_with_0(tmp_path: Path) -> None:
    code = (
        "import sys, threading\n"
        "from openseer_worker.kv_pool.mooncake.client import MooncakeBlocks\n"
        "from openseer_worker.startup import end_process\n"
        "store = MooncakeBlocks(sys.argv[1])\n"
        "ask = lambda: print(store.count_present('1/a/b', ['00'], 'layout', 1), flush=True)\n"
        "ask()\n"
        "sys.stdin.readline()\n"
        "threading.Thread(target=ask, daemon=True).start()\n"
        "sys.stdin.readline()\n"
        "end_process(0)\n"
    )
    with running(tmp_path) as pool:
        command = [sys.executable, "-c", code, pool.master]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == "0\n"
            stop(pool.process.pid)
            try:
                stop(pool.pid("mooncake_master"))
                child.stdin.write("\n\n")
                child.stdin.flush()
                assert child.wait(30) == 0
            finally:
                os.kill(pool.process.pid, signal.SIGCONT)


def test_the_servers_ports_are_outside_of_the_ephemeral_range() -> None:
    first, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if first < 32_768:
        pytest.skip("this machine's ephemeral port range is not Linux's default")
    assert all(free_ports(HOST) + PORTS <= first for _ in range(200))

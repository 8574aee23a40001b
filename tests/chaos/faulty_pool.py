"""Mooncake's master and store of a run, started and watched as in a local run, and the faults that strike them.

As a program, `python -m tests.chaos.faulty_pool HOST:PORT`, it fills the store of a master and keeps it full.
"""

import asyncio
import os
import random
import signal
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from openseer_worker.kv_pool.blocks import HEADER_BYTES, block_header
from openseer_worker.kv_pool.mooncake.client import MooncakeBlocks
from openseer_worker.kv_pool.mooncake.servers import PoolServers, free_ports
from tests.chaos.schedule import POOL_PROCESSES, Fault
from tests.repository import ROOT

HOST = "127.0.0.1"
MIB = 2**20
STORE_BYTES = 64 * MIB
"""Small, so that the store is soon full; the blocks of a run's responses take half of it."""
STOPPED_SECONDS, GOING_SECONDS = 0.09, 0.01
"""Seconds for which a slow pool is stopped, and for which it then runs."""
REPEAT_SECONDS = 0.05
"""Seconds between two writes to a full store, and between two corruptions of its blocks."""
PIECE_BYTES = 4 * MIB
_NOISE = random.Random(1).randbytes(4096)
"""Replaces the first bytes of a block, enough of them to change tokens."""
_MAGIC = block_header("", memoryview(b""))[:8]


class FaultyPool:
    """`async with FaultyPool(logs) as pool`."""

    def __init__(self, logs: Path) -> None:
        self.said: list[str] = []
        """Messages about the ends of its processes."""
        port = free_ports(HOST)
        self.master = f"{HOST}:{port}"
        self._servers = PoolServers(HOST, port, STORE_BYTES, logs, self.said.append)

    async def __aenter__(self) -> "FaultyPool":
        await self._servers.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._servers.__aexit__()

    def why_not(self) -> str:
        """The reason why no fault can strike the pool now; "" if one can."""
        return "" if self._servers.is_up else "the pool is being started again"

    async def strike(self, fault: Fault) -> None:
        """Applies one fault until its end."""
        pids: dict[str, int] = dict(zip(POOL_PROCESSES, self._servers.pids, strict=True))
        match fault.kind:
            case "kill":
                os.kill(pids[fault.target], signal.SIGKILL)
            case "pause":
                await self._stop([pids[fault.target]], fault.amount)
            case "slow":
                end = time.monotonic() + fault.amount
                while time.monotonic() < end:
                    await self._stop(list(pids.values()), STOPPED_SECONDS)
                    await asyncio.sleep(GOING_SECONDS)
            case "corrupt":
                end = time.monotonic() + fault.amount
                while time.monotonic() < end:
                    await asyncio.to_thread(corrupt, pids["pool-store"])
                    await asyncio.sleep(REPEAT_SECONDS)
            case _:
                await self._fill(fault.amount)

    async def _stop(self, pids: list[int], seconds: float) -> None:
        self._signal(pids, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._signal(pids, signal.SIGCONT)

    def _signal(self, pids: list[int], number: signal.Signals) -> None:
        for pid in set(pids) & set(self._servers.pids):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def _fill(self, seconds: float) -> None:
        filler = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.faulty_pool", self.master), cwd=ROOT, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await asyncio.sleep(seconds)
        finally:
            filler.kill()
            await filler.wait()


def corrupt(pid: int) -> int:
    """Changes bytes of each block in the memory of a store; returns the number of blocks, 0 if the store has ended."""
    changed = 0
    with suppress(OSError), Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, end = (int(number, 16) for number in line.split()[0].split("-"))
            if end - first >= STORE_BYTES and line.split()[1].startswith("rw"):
                for start in range(first, end, PIECE_BYTES):
                    changed += _corrupt_piece(memory.fileno(), start, min(PIECE_BYTES, end - start))
    return changed


def _corrupt_piece(memory: int, start: int, size: int) -> int:
    piece, at, changed = os.pread(memory, size, start), -1, 0
    while (at := piece.find(_MAGIC, at + 1)) >= 0:
        first = at + HEADER_BYTES
        os.pwrite(memory, _NOISE[: len(piece) - first], start + first)
        changed += 1
    return changed


def main() -> None:
    """Never returns: fills the store."""
    blocks, payload = MooncakeBlocks(sys.argv[1]), memoryview(bytes(MIB))
    for number in count():
        with suppress(OSError):
            for _ in blocks.write("junk", [str(number)], [payload], begins=True):
                pass
            continue
        time.sleep(REPEAT_SECONDS)


if __name__ == "__main__":
    main()

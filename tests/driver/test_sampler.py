"""Samples of the fleet, and the messages of the sampler."""

import asyncio
import logging
from pathlib import Path

import pytest

from openseer_core.queue.store_memory import StoreMemory
from openseer_driver import sampler
from openseer_driver.run_folder import RunFolder
from openseer_store.memory import MemoryStore


class FillingStore(MemoryStore):
    """A store that is nearly full, has room, and is nearly full again, for two readings each."""

    def __init__(self) -> None:
        super().__init__()
        self.readings = 0

    async def memory(self) -> StoreMemory:
        self.readings += 1
        return StoreMemory(used=50 if self.readings in (3, 4) else 95, limit=100)


async def test_each_time_the_store_is_nearly_full_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sampler, "SAMPLE_SECONDS", 0.0)
    folder = RunFolder(tmp_path)
    folder.create()
    store = FillingStore()
    enough = asyncio.Event()

    def count(_: object) -> None:
        if store.readings >= 6:
            enough.set()

    with caplog.at_level(logging.WARNING):
        sampling = asyncio.create_task(sampler.sample_forever(store, folder, lambda: 5000.0, count))
        await enough.wait()
        sampling.cancel()
    assert {sample.taken_at for sample in folder.samples()} == {5000.0}
    assert sum("Redis uses" in record.message for record in caplog.records) == 2

"""One worker at a time keeps a pool within its bytes; an unswept pool is not written to."""

import os
import time
from pathlib import Path

import pytest

from openseer_worker.kv_pool import sweeps
from openseer_worker.kv_pool.free_space import LOOK_SECONDS, FreeSpace
from openseer_worker.kv_pool.sweeps import UNSWEPT_SECONDS, Sweeps, alone, swept_at


def mark(folder: Path, at: float) -> None:
    (folder / ".sweep").touch()
    os.utime(folder / ".sweep", (at, at))


def test_one_worker_at_a_time_sweeps_a_pool(tmp_path: Path) -> None:
    mark(tmp_path, 1)
    with alone(tmp_path) as first:
        with alone(tmp_path) as second:
            assert (first, second) == (True, False)
        assert swept_at(tmp_path) == 1, "a worker that did not sweep has written the mark"
    assert swept_at(tmp_path) > 1


def test_a_pool_swept_recently_is_not_swept_again(tmp_path: Path) -> None:
    mark(tmp_path, time.time())
    with alone(tmp_path) as one:
        assert not one


@pytest.mark.parametrize("seconds", [-1e6, 1e6])
def test_a_mark_of_another_clock_prevents_no_sweep(tmp_path: Path, seconds: float) -> None:
    mark(tmp_path, time.time() + seconds)
    with alone(tmp_path) as one:
        assert one
    assert abs(swept_at(tmp_path) - time.time()) < 3600


def test_a_failed_sweep_is_not_marked(tmp_path: Path) -> None:
    mark(tmp_path, 1)
    with pytest.raises(OSError, match="broken"), alone(tmp_path):
        raise OSError("broken")
    assert swept_at(tmp_path) == 1


def test_an_unswept_pool_is_not_written_to(tmp_path: Path) -> None:
    now = 100.0
    written = Sweeps(tmp_path, lambda: now)
    written.check()
    now += UNSWEPT_SECONDS + 1
    with pytest.raises(OSError, match="no worker has kept it within its bytes for 60 s"):
        written.check()
    for at in (1e9, 5.0):  # clocks may jump either way
        mark(tmp_path, at)
        written.check()
        now += UNSWEPT_SECONDS
        written.check()


def test_a_hanging_sweep_stops_the_writes_of_all_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    space = FreeSpace(tmp_path, lambda: now)
    mark(tmp_path, 1)
    space.check()
    with alone(tmp_path):  # the sweep never ends
        monkeypatch.setattr(sweeps, "UNSWEPT_SECONDS", LOOK_SECONDS / 2)
        now += LOOK_SECONDS
        with pytest.raises(OSError, match="no worker has kept it"):
            space.check()

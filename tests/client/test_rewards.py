"""Rewards computed in processes: each with its group, in order, and an error in place of a missing reward."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openseer_client import FinishedGroup, ResultItem, RewardError, RewardPool
from tests.client.remote import end, result

KILLED = """
import os, time
from openseer_client import RewardPool
from tests.client.test_rewards import group

def slow(item):
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    RewardPool(slow, 1).rewards(group("g", 1))
"""


def group(name: str, size: int = 2, *, aborted: int = 0) -> FinishedGroup:
    results = tuple(result(name, index) for index in range(size - aborted))
    return FinishedGroup(end(name, size, aborted=aborted), results)


def by_name(item: ResultItem) -> float:
    if item.group == "slow":
        time.sleep(0.5)
    return 10.0 * len(item.group) + item.index


class Judged(Exception):
    """An error that cannot be rebuilt from its text, as errors of HTTP clients."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status} {body}")


class Wordless(Exception):
    """An error whose text cannot be read, because its own code is wrong."""

    def __str__(self) -> str:
        raise KeyError("words")

    __repr__ = __str__


def silent() -> float:
    raise Wordless


def raises() -> float:
    raise KeyError("no answer")


def judge() -> float:
    raise Judged(429, "slow down")


def hides() -> float:
    try:
        time.sleep(600)
    except Exception:  # noqa: BLE001 - as rewards do
        return 0.0
    return 1.0


def hangs() -> float:
    # As code that never returns to the interpreter.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(600)
    return 1.0


WAYS: dict[str, Callable[[], Any]] = {
    "fine": lambda: 1.0,
    "raises": raises,
    "judge": judge,
    "hides": hides,
    "hangs": hangs,
    "sleeps": lambda: time.sleep(600),
    "dies": lambda: os._exit(3),
    "exits": lambda: sys.exit(0),
    "none": lambda: None,
    "nan": lambda: float("nan"),
    "huge": lambda: 10**400,
    "text": lambda: "0.5",
    "wordless": Wordless,
    "silent": silent,
}


def misbehaves(item: ResultItem) -> float:
    return WAYS[item.group]()


def import_here(pool: RewardPool) -> None:
    """Calls until a process has imported this module, which may exceed the time limit of a call."""
    while True:
        with contextlib.suppress(RewardError):
            pool.rewards(group("fine", 1))
            return


def test_each_response_of_a_group_has_its_reward() -> None:
    with RewardPool(by_name, 2) as pool:
        assert pool.rewards(group("abc", 3)) == [30.0, 31.0, 32.0]
        found = list(pool.over([group("slow"), group("b"), group("lost", aborted=1), group("cc", 1)]))
    assert [(each.name, values) for each, values in found] == [
        ("slow", [40.0, 41.0]),
        ("b", [10.0, 11.0]),
        ("lost", []),
        ("cc", [20.0]),
    ]


def test_at_most_ahead_groups_are_taken_in_advance() -> None:
    taken: list[str] = []

    def groups() -> Iterator[FinishedGroup]:
        for number in range(8):
            taken.append(f"g{number}")
            yield group("slow", 1)

    with RewardPool(by_name, 1) as pool:
        next(pool.over(groups(), ahead=2))
        assert taken in (["g0"], ["g0", "g1"], ["g0", "g1", "g2"])


def test_a_failed_reward_leaves_later_rewards_intact() -> None:
    with RewardPool(misbehaves, 1) as pool:
        for name in ("judge", "exits", "raises"):
            with pytest.raises(RewardError):
                pool.rewards(group(name))
        assert pool.rewards(group("fine")) == [1.0, 1.0]


def test_processes_end_when_their_trainer_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        process = int(trainer.stdout.readline())
        trainer.kill()
    while _runs(process):
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.parametrize(
    ("name", "index", "why"),
    [
        ("raises", 0, "reward of response raises/0: KeyError: 'no answer'"),
        ("sleeps", 0, "reward of response sleeps/0: no reward within 2 s"),
        ("hangs", None, "reward of group hangs: a process that computed rewards died"),
        ("dies", None, "reward of group dies: a process that computed rewards died"),
        ("hides", 0, "reward of response hides/0: no reward within 2 s"),
        ("exits", 0, "reward of response exits/0: SystemExit: 0"),
        ("judge", 0, "reward of response judge/0: Judged: 429 slow down"),
        ("huge", 0, "reward of response huge/0: found 1000"),
        ("text", 0, "reward of response text/0: found '0.5', needed: a finite number"),
        ("wordless", 0, r"reward of response wordless/0: found Wordless \(KeyError"),
        ("silent", 0, r"reward of response silent/0: Wordless: Wordless \(KeyError"),
        ("none", 0, "reward of response none/0: found None, needed: a finite number"),
        ("nan", 0, "reward of response nan/0: found nan, needed: a finite number"),
    ],
)
def test_a_response_without_a_reward_is_an_error(name: str, index: int | None, why: str) -> None:
    # Only rewards that never end may exceed the limit, even on a busy machine.
    seconds = 2.0 if name in ("sleeps", "hides", "hangs") else 60.0
    with RewardPool(misbehaves, 1, seconds=seconds) as pool:
        import_here(pool)
        with pytest.raises(RewardError, match=why) as caught:
            pool.rewards(group(name))
        assert (caught.value.group, caught.value.index) == (name, index)


def test_a_function_that_no_process_can_import_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="needed: a function at the top level of a module"):
        RewardPool(lambda _: 1.0)
    typed = "from openseer_client import RewardPool\ndef f(item): return 1.0\nRewardPool(f)"
    done = subprocess.run([sys.executable, "-c", typed], capture_output=True, text=True, check=False)
    assert "needed: a function at the top level of a module in a file" in done.stderr


def test_a_pool_needs_processes_and_time() -> None:
    for processes, seconds in ((0, 1.0), (1, 0.0), (1, float("inf")), (1, float("nan"))):
        with pytest.raises(ValueError, match="needed: at least 1, more than 0"):
            RewardPool(by_name, processes, seconds=seconds)

"""Rewards computed in processes: each with its group, in order, and never a number where there is none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from openseer_client import FinishedGroup, ResultItem, RewardError, RewardPool
from tests.client.remote import end, result


def group(name: str, size: int = 2, *, aborted: int = 0) -> FinishedGroup:
    results = tuple(result(name, index) for index in range(size - aborted))
    return FinishedGroup(end(name, size, aborted=aborted), results)


def by_name(item: ResultItem) -> float:
    if item.group == "slow":
        time.sleep(0.5)
    return 10.0 * len(item.group) + item.index


def misbehaves(item: ResultItem) -> float:
    match item.group:
        case "raises":
            raise KeyError("no answer")
        case "sleeps":
            time.sleep(600)
        case "hangs":
            # As code does that never comes back to the interpreter.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            time.sleep(600)
        case "dies":
            os._exit(3)
        case "none":
            return None  # pyright: ignore[reportReturnType]
        case "nan":
            return float("nan")
        case other:
            raise ValueError(other)
    return 1.0


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


def test_only_so_many_groups_are_taken_ahead() -> None:
    taken: list[str] = []

    def groups() -> Iterator[FinishedGroup]:
        for number in range(8):
            taken.append(f"g{number}")
            yield group("slow", 1)

    with RewardPool(by_name, 1) as pool:
        next(pool.over(groups(), ahead=2))
        assert taken in (["g0"], ["g0", "g1"], ["g0", "g1", "g2"])


@pytest.mark.parametrize(
    ("name", "index", "why"),
    [
        ("raises", 0, "reward of response raises/0: KeyError: 'no answer'"),
        ("sleeps", 0, "reward of response sleeps/0: no reward within 0.3 s"),
        ("hangs", None, "reward of group hangs: a process that computed rewards died"),
        ("dies", None, "reward of group dies: a process that computed rewards died"),
        ("none", 0, "reward of response none/0: found None, needed: a finite number"),
        ("nan", 0, "reward of response nan/0: found nan, needed: a finite number"),
    ],
)
def test_a_response_without_a_reward_is_an_error(name: str, index: int | None, why: str) -> None:
    # Only those that take for ever may take too long, however busy this machine is.
    seconds = 0.3 if name in ("sleeps", "hangs") else 60.0
    with RewardPool(misbehaves, 1, seconds=seconds) as pool:
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
    for processes, seconds in ((0, 1.0), (1, 0.0)):
        with pytest.raises(ValueError, match="needed: at least 1, more than 0"):
            RewardPool(by_name, processes, seconds=seconds)

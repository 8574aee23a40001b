"""Threads that may hang block neither later calls nor the exit of the process."""

import subprocess
import sys
import threading

import pytest

from openseer_worker.kv_pool.daemons import DaemonThreads

HANGING = """
import threading
from openseer_worker.kv_pool.daemons import DaemonThreads
DaemonThreads(1, "hanging").submit(threading.Event().wait)
print("ends")
"""


def test_results_and_errors_are_in_the_future() -> None:
    threads = DaemonThreads(2, "test")
    assert threads.submit(divmod, 7, 2).result(30) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 7, 0).result(30)
    threads.close()


def test_a_hanging_thread_leaves_the_others() -> None:
    threads, hold = DaemonThreads(2, "test"), threading.Event()
    hanging = threads.submit(hold.wait)
    assert [threads.submit(abs, -number).result(30) for number in range(5)] == list(range(5))
    assert not hanging.done()
    hold.set()
    assert hanging.result(30)
    threads.close()


def test_the_queue_behind_hanging_threads_has_a_limit() -> None:
    threads, hold, began = DaemonThreads(1, "test", most=2), threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        hold.wait()

    threads.submit(hang)
    assert began.wait(30)
    waiting = [threads.submit(abs, -number) for number in range(2)]
    with pytest.raises(TimeoutError, match="2 other calls wait for test"):
        threads.submit(abs, -2).result(0)
    hold.set()
    assert [one.result(30) for one in waiting] == [0, 1]
    threads.close()


def test_a_process_exits_despite_a_hanging_thread() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout == "ends\n"

"""A process that imports vLLM once and forks one child for each order, since an import takes as long as a measurement.

Messages are lines of JSON. In: an Order. Out: {"warm": seconds}, {"started": process id}, {"ended": exit code,
"cpu_seconds": …}; a negative code is a signal's number. Children run one at a time, each in its own session, with its
output in a log. The kernel kills a child at the end of this process, and this process at the end of its parent. This
process must never use a GPU.
"""

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from openseer_worker.gpu_bench.ways import Order
from openseer_worker.vllm import environment
from openseer_worker.vllm.building import preload

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves orders until the end of input."""
    _end_with_parent()
    # Output of libraries must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    began = time.monotonic()
    if environment.is_cpu_build():
        # vLLM's ngram uses one thread; more threads would spin, while they wait, on the cores that the engine needs.
        os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    preload(sys.argv[1])
    _send(answers.fileno(), warm=round(time.monotonic() - began, 1))
    for line in sys.stdin:
        order = Order.from_json(line)
        pid = os.fork()
        if not pid:
            answers.close()
            _child(order)
        _send(answers.fileno(), started=pid)
        _, status, usage = os.wait4(pid, 0)
        _send(
            answers.fileno(),
            ended=os.waitstatus_to_exitcode(status),
            cpu_seconds=round(usage.ru_utime + usage.ru_stime, 1),
        )


def _send(descriptor: int, **fields: float) -> None:
    os.write(descriptor, json.dumps(fields).encode() + b"\n")


def _child(order: Order) -> None:
    """Runs an order in a child process; never returns."""
    code = 70
    try:
        os.setsid()
        _end_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = os.open(Path(order.folder) / log_name(order.way), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # Imported here because it imports numba, which must not be loaded on a CPU while vLLM is imported.
        from openseer_worker.gpu_bench.measure import run

        code = run(order)
    except BaseException:  # noqa: BLE001 - the log is the only report of the error
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without waiting for vLLM's threads


def log_name(way: str) -> str:
    """Returns the name of the log file of a way's processes."""
    return f"{way.replace(' ', '-')}.log"


def _end_with_parent() -> None:
    """Makes the kernel kill this process when its parent ends for any reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()

"""Composition root of a driver pod: parses arguments, handles signals, runs the job once.

Exit codes: 0: the job is complete and its audit found no violation; 143: stopped by a signal before that (the same
command resumes the job); all others: see openseer_core.errors.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from openseer_core.errors import OpenseerError
from openseer_driver.pod_run import PodRun, PodSettings
from openseer_process.logs import start_log
from openseer_process.termination import report

log = logging.getLogger("openseer.driver")

STOPPED = 128 + signal.SIGTERM
"""Exit code after SIGTERM or SIGINT."""


def main() -> int:
    """`python -m openseer_driver.main`: drives a batch job until it is complete."""
    signal.signal(signal.SIGTERM, _leave)  # process 1 of a container would ignore it
    parser = argparse.ArgumentParser(prog="openseer-driver", description="The driver of a RolloutJob of mode batch.")
    parser.add_argument("--job", type=Path, required=True, help="the RolloutJob as JSON")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the run")
    parser.add_argument("--prompts", type=Path, help="the prompts, where they are mounted")
    parser.add_argument("--routed", type=Path, help="the job's folder of rows of routed experts, which workers write")
    parser.add_argument("--store", default=os.environ.get("OPENSEER_STORE_URL"), help="URL of the job's Redis")
    parser.add_argument("--http-port", type=int, default=8080, help="port of probes and metrics; 0: any")
    options = parser.parse_args()
    if not options.store:
        parser.error("--store or OPENSEER_STORE_URL is needed")
    start_log()
    places = (options.job, options.output, options.prompts, options.store, options.http_port)
    settings = PodSettings(*places, options.routed)
    try:
        asyncio.run(_run(settings))
    except asyncio.CancelledError:
        log.info("stopped before the job was complete; the same command resumes it")
        return STOPPED
    except OpenseerError as error:
        return report(error)
    return 0


async def _run(settings: PodSettings) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await PodRun(settings).execute()


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(STOPPED)


if __name__ == "__main__":
    sys.exit(main())

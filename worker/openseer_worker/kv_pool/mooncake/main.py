"""Runs Mooncake's master and store until SIGTERM: `python -m openseer_worker.kv_pool.mooncake.main`."""

import argparse
import asyncio
import logging
import signal
import tempfile
from pathlib import Path

from openseer_core.errors import OpenseerError
from openseer_process.logs import start_log
from openseer_process.termination import report
from openseer_worker.kv_pool.mooncake.installed import check_programs
from openseer_worker.kv_pool.mooncake.servers import PoolServers

log = logging.getLogger("openseer.kv_pool")


def main() -> int:
    """Runs the servers until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="openseer-kv-pool", description="The KV pool of a RolloutJob.")
    parser.add_argument("--host", required=True, help="address at which workers reach it")
    parser.add_argument("--port", type=int, required=True, help="first of three ports: master, its metrics, store")
    parser.add_argument("--gigabytes", type=int, required=True, help="memory for blocks, in GiB")
    parser.add_argument("--logs", type=Path, help="folder of the logs; unset: a temporary one")
    options = parser.parse_args()
    start_log()
    try:
        check_programs()
        with tempfile.TemporaryDirectory(prefix="openseer-kv-pool-") as folder:
            asyncio.run(_run(options, options.logs or Path(folder)))
    except OpenseerError as error:
        return report(error)
    return 0


async def _run(options: argparse.Namespace, logs: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    servers = PoolServers(options.host, options.port, options.gigabytes * 2**30, logs, log.info)
    async with servers as master:
        log.info("the KV pool is at %s", master)
        await stop.wait()


if __name__ == "__main__":
    raise SystemExit(main())

"""Mooncake's master and store for tests, in a separate process, on this machine's own address."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from openseer_core.errors import InputError
from openseer_worker.kv_pool.mooncake.installed import check_servers
from openseer_worker.kv_pool.mooncake.servers import free_ports
from openseer_worker.kv_pool.mooncake.watching import usage
from tests.worker.kv_pool.waiting import eventually

HOST = "127.0.0.1"
SECONDS = 120.0


def why_not() -> str:
    """The reason why Mooncake cannot run here; "" if it can."""
    try:
        check_servers(2**30)
    except InputError as error:
        return str(error)
    return ""


class Pool:
    """A running pool. `master`: HOST:PORT."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.master = f"{HOST}:{port}"

    @property
    def is_up(self) -> bool:
        try:
            return usage(self.master).capacity > 0
        except OSError:
            return False

    def pid(self, name: str) -> int:
        """Process id of mooncake_master or mooncake_client; 0 if it does not run."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            if f"/{name}\0" in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
        return 0

    def names(self) -> list[str]:
        host, _, port = self.master.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port) + 1, timeout=SECONDS)
        connection.request("GET", "/get_all_keys")
        text = connection.getresponse().read().decode()
        connection.close()
        return [str(key) for key in json.loads(text)] if text.startswith("[") else text.split()


@contextmanager
def running(logs: Path, gigabytes: int = 1) -> Generator[Pool]:
    """Starts a pool of so many GiB and yields it when it is up."""
    port = free_ports(HOST)
    command = [
        *(sys.executable, "-m", "openseer_worker.kv_pool.mooncake.main", "--host", HOST, "--port", str(port)),
        *("--gigabytes", str(gigabytes), "--logs", str(logs)),
    ]
    with subprocess.Popen(command, env=os.environ) as process:
        pool = Pool(process, port)
        try:
            eventually(lambda: pool.is_up or process.poll() is not None)
            assert process.poll() is None, "the pool did not start"
            yield pool
        finally:
            process.terminate()
            process.wait(SECONDS)

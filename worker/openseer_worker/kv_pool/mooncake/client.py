"""KV blocks in Mooncake's store, by key: <epoch>/<version>/<group>/<block>.

Each process has one client per master, which the first call creates, in its thread. The client reconnects by itself
after a restart of master and store. Calls take seconds while the master does not run, and hang while it hangs; they
release Python's lock.
"""

import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from openseer_worker.kv_pool.blocks import HEADER_BYTES, BadBlockError, block_header, check_block
from openseer_worker.kv_pool.places import block_name

BUFFER_BYTES = 256 * 2**20
"""Size of a process's transfer buffer, in bytes; its memory is allocated at use."""
BATCH_BYTES = 32 * 2**20
"""Limit of bytes per call, since several threads share the buffer; a larger block is sent alone."""
_FULL = -200
_MODULE = "mooncake.store"
_ENVIRONMENT = {
    "MC_LOG_LEVEL": "ERROR",
    "MC_STORE_CLIENT_SETUP_RETRIES": "1",  # the breaker tries again
}


class MooncakeBlocks:
    """The blocks of a job in the store whose master is at `master` (HOST:PORT); see BlockStore."""

    def __init__(self, master: str) -> None:
        self._link = _link(master)

    def count_present(self, place: str, blocks: Sequence[str], layout: str, ranks: int) -> int:
        """Makes one call for all blocks. The store keeps the blocks that it reports for 5 s. Raises OSError."""
        keys = [f"{place}/{block_name(block, layout, rank)}" for block in blocks for rank in range(ranks)]
        for number, found in enumerate(self._link.present(keys)):
            if not found:
                return number // ranks
        return len(blocks)

    def read(self, place: str, names: Sequence[str], into: Sequence[memoryview]) -> Iterator[None]:
        """Reads the blocks in batches. Raises OSError and BadBlockError."""
        for batch in _batches(into):
            keys = [f"{place}/{name}" for name in names[batch]]
            for key, value, row in zip(keys, self._link.client().batch_get_buffer(keys), into[batch], strict=True):
                if value is None:
                    raise OSError(errno.ENOENT, "the store did not return it", key)
                data = memoryview(value).cast("B")
                try:
                    if data.nbytes != HEADER_BYTES + row.nbytes:
                        raise BadBlockError(f"found {data.nbytes} bytes, expected {HEADER_BYTES + row.nbytes}")
                    row[:] = data[HEADER_BYTES:]
                    check_block(key.rpartition("/")[2], data[:HEADER_BYTES], row)
                except BadBlockError as error:  # the next worker that computes the removed block writes it again
                    self._link.client().batch_remove([key], True)
                    raise BadBlockError(f"{key}: {error}") from error
                yield

    def write(
        self, place: str, names: Sequence[str], payloads: Sequence[memoryview], *, begins: bool
    ) -> Iterator[bool]:
        """Writes the missing blocks in batches. Raises OSError, also if the store is full."""
        for batch in _batches(payloads):
            keys = [f"{place}/{name}" for name in names[batch]]
            present = self._link.present(keys)
            new = [
                (key, row) for key, row, is_there in zip(keys, payloads[batch], present, strict=True) if not is_there
            ]
            if new:
                values = [b"".join((block_header(key.rpartition("/")[2], row), row)) for key, row in new]
                code = self._link.client().put_batch([key for key, _ in new], values)
                if code:
                    reason = "the store is full" if code == _FULL else f"the store answered {code}"
                    raise OSError(errno.ENOSPC if code == _FULL else errno.EIO, reason, new[0][0])
            for is_there in present:
                yield not is_there

    def remove(self, places: Sequence[str]) -> int:
        """Removes all blocks of groups or versions; returns the number of blocks. Raises OSError."""
        within: dict[str, list[str]] = {}
        for place in places:
            outer, _, inner = place.rpartition("/")
            within.setdefault(outer, []).append(inner)
        return sum(self._remove(outer, inner) for outer, inner in within.items())

    def _remove(self, outer: str, inner: Sequence[str]) -> int:
        # Names of places are digits, letters and slashes, so they need no escaping.
        removed = self._link.client().remove_by_regex(f"^{outer}/({'|'.join(inner)})/", True)
        if removed < 0:
            raise OSError(errno.EIO, f"the store answered {removed}", outer)
        return int(removed)


def _batches(rows: Sequence[memoryview]) -> Iterator[slice]:
    size = max(1, BATCH_BYTES // rows[0].nbytes) if rows else 1
    for start in range(0, len(rows), size):
        yield slice(start, start + size)


class _Link:
    """The link to a master: its client, created at the first use."""

    def __init__(self, master: str) -> None:
        self._master = master
        self._making = threading.Lock()
        self._client: Any = None

    def client(self) -> Any:
        """Returns the client, after creating it if needed. Raises OSError if the store cannot be reached."""
        with self._making:
            if self._client is None:
                self._client = self._made()
            return self._client

    def present(self, keys: Sequence[str]) -> list[bool]:
        """Returns, for each key, whether the store has it. Raises OSError."""
        answers = self.client().batch_is_exist(list(keys))
        if any(answer < 0 for answer in answers):
            raise OSError(errno.EIO, f"the store answered {min(answers)}", self._master)
        return [answer == 1 for answer in answers]

    def _made(self) -> Any:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            store: Any = import_module(_MODULE)  # an optional package, which starts threads
        except ImportError as error:
            raise OSError(errno.ENOSYS, f"Mooncake cannot be loaded: {error}", self._master) from error
        client = store.MooncakeDistributedStore()
        code = client.setup(_own_host(self._master), "P2PHANDSHAKE", 0, BUFFER_BYTES, "tcp", "", self._master)
        if code:
            raise OSError(errno.ECONNREFUSED, f"the store's master does not answer ({code})", self._master)
        return client


def is_loaded() -> bool:
    """Whether this process has loaded Mooncake: if Mooncake's threads hang, they abort the process at its end."""
    return _MODULE in sys.modules


@cache
def _link(master: str) -> _Link:
    return _Link(master)


def _own_host(master: str) -> str:
    """Returns the address of this machine on the route to the master. Raises OSError."""
    host, _, port = master.rpartition(":")
    family, kind, _, _, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as toward:
        toward.connect(place)  # sends nothing
        return str(toward.getsockname()[0])

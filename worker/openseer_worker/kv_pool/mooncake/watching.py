"""Reads the usage of Mooncake's store from its master, and removes groups that are over before the store evicts.

The store evicts the least recently used blocks: mostly the first blocks of responses that still run. So groups that are
over are removed before it is full.
"""

import http.client
from collections.abc import Sequence
from dataclasses import dataclass

from openseer_worker.kv_pool.mooncake.client import MooncakeBlocks

ANSWER_SECONDS = 2.0
"""Timeout of the master's answer about the usage, in seconds."""
FULL_SHARE = 0.8
"""Usage from which groups that are over are removed; the store itself evicts from EVICTION_SHARE on."""
EVICTION_SHARE = 0.95


MOST_REMOVED = 64
"""Limit of groups removed in one call, in which the master scans the names of all blocks."""


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """Bytes `used` by blocks, of `capacity`, which is 0 while no store is registered."""

    used: int
    capacity: int


def usage(master: str) -> StoreUsage:
    """Reads the usage from the master's web server, at the port after the master's. Raises OSError."""
    host, _, port = master.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port) + 1, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode(errors="replace")
    except http.client.HTTPException as error:
        raise OSError(f"{master}: {error}") from error
    finally:
        connection.close()
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("master_"))
    try:
        used, capacity = numbers["master_allocated_bytes"], numbers["master_total_capacity_bytes"]
        return StoreUsage(int(float(used)), int(float(capacity)))
    except (KeyError, ValueError) as error:
        raise OSError(f"{master}: its metrics lack the store's bytes: {error}") from error


class MooncakeSweeper:
    """Removes blocks of replaced weights, and of groups that are over, from the store at `master`."""

    def __init__(self, master: str) -> None:
        self._master = master
        self._blocks = MooncakeBlocks(master)

    def sweep(self, ended: Sequence[str], replaced: Sequence[str]) -> Sequence[str]:
        """Returns the removed part of `ended`: while usage exceeds FULL_SHARE its older half, at most MOST_REMOVED.

        Raises OSError.
        """
        now = usage(self._master)
        going = ended[: min(MOST_REMOVED, (len(ended) + 1) // 2)] if now.used > FULL_SHARE * now.capacity else ()
        self._blocks.remove([*replaced, *going])
        return going

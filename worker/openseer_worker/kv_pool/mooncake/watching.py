"""Reads the usage of Mooncake's store from its master, and removes ended groups before the store evicts blocks.

The store evicts the least recently used blocks: mostly the first blocks of responses that still run. So ended groups
are removed before the store is full.
"""

import http.client
from collections.abc import Sequence
from dataclasses import dataclass

from openseer_worker.kv_pool.mooncake.client import MooncakeBlocks

ANSWER_SECONDS = 2.0
"""Timeout of the master's answer about the usage, in seconds."""
FULL_SHARE = 0.8
"""Usage, as a share of the capacity, above which ended groups are removed."""
EVICTION_SHARE = 0.95
"""Usage above which the store evicts blocks."""
MOST_REMOVED = 64
"""Limit of groups removed in one call: the master scans the names of all blocks for it."""


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """Bytes `used` by blocks, and the store's `capacity` in bytes: 0 while no store is registered."""

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
    """Removes blocks of replaced weights and of ended groups from the store at `master`; see Sweeper."""

    def __init__(self, master: str) -> None:
        self._master = master
        self._blocks = MooncakeBlocks(master)

    def sweep(self, ended: Sequence[str], replaced: Sequence[str]) -> Sequence[str]:
        """Removes `replaced` and, if the usage exceeds FULL_SHARE, the older half of `ended`, at most MOST_REMOVED
        groups. Returns the removed part of `ended`. Raises OSError.
        """
        now = usage(self._master)
        going = ended[: min(MOST_REMOVED, (len(ended) + 1) // 2)] if now.used > FULL_SHARE * now.capacity else ()
        self._blocks.remove([*replaced, *going])
        return going

"""How full Mooncake's store is, as its master says, and what is removed of it before it throws away by itself.

By itself it removes what was not touched for longest: mostly the first blocks of responses that still run. So groups
that are over are removed before it is full.
"""

import http.client
from collections.abc import Sequence
from dataclasses import dataclass

from openseer_worker.kv_pool.mooncake.client import MooncakeBlocks

ANSWER_SECONDS = 2.0
"""Longest wait for the master to say how full the store is."""
FULL_SHARE = 0.8
"""From here on groups that are over are removed; the store itself removes from EVICTION_SHARE on."""
EVICTION_SHARE = 0.95


MOST_REMOVED = 64
"""Groups that are removed at once; the master looks at the names of all blocks for it."""


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """Bytes that blocks take, of those that the store has; `capacity` is 0 while no store holds any."""

    used: int
    capacity: int


def usage(master: str) -> StoreUsage:
    """Asks the master's own web server, which has the port after it. Raises OSError."""
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
        raise OSError(f"{master}: its metrics say nothing of its bytes: {error}") from error


class MooncakeSweeper:
    """Removes groups that are over from the store at `master`, and blocks of replaced weights."""

    def __init__(self, master: str) -> None:
        self._master = master
        self._blocks = MooncakeBlocks(master)

    def sweep(self, ended: Sequence[str], replaced: Sequence[str]) -> Sequence[str]:
        """Gives those of `ended` that are removed: while the store is full their older half, MOST_REMOVED at most.

        Raises OSError.
        """
        now = usage(self._master)
        going = ended[: min(MOST_REMOVED, (len(ended) + 1) // 2)] if now.used > FULL_SHARE * now.capacity else ()
        self._blocks.remove([*replaced, *going])
        return going

"""Weights that a trainer sends, tensor by tensor, to one worker, which receives them for the whole fleet.

The sender has one receiver, so the size of its process group does not depend on the number of workers. The worker
writes the tensors to files in a folder that all workers can read; the folder is published like any other, by its
digest. The fleet spec contains the request, and the worker's heartbeat contains the progress. Both are states, so each
side can read the other's again after a restart.
"""

import json

from pydantic import JsonValue

from openseer_core.errors import InputError
from openseer_core.json_model import JsonModel
from openseer_core.worker.heartbeat import ReceptionReport

JOIN_SECONDS = 300.0
"""Timeout of the join, in seconds, for both sides; it includes the start of the receiving process."""
BEGIN_SECONDS = 60.0
"""Timeout of the start of a round, in seconds: creating the folder and deleting the files of an earlier round."""
UPDATE_SECONDS = 1800.0
"""Timeout of one update, in seconds: receiving the sender's tensors and writing them."""
FINISH_SECONDS = 900.0
"""Timeout of the end of a round, in seconds: writing all received tensors to disk and computing their digest."""
MAX_UPDATE_BYTES = 4 * 2**20
"""Size limit of the description of one update, in bytes of JSON. The description is part of the fleet spec, which all
workers read, and no call of the API accepts more."""
MAX_UPDATES = 100_000
"""Limit of updates of one round; each update becomes a file."""


class Reception(JsonModel):
    """The reception in the fleet spec. A round is one set of weights, in one or more updates.

    `worker`, `boot`: the receiver. `init`: the parameters of the join, in the backend's format. `round`: number of
    rounds so far. `updates`: number of updates announced in this round; `update`: description of the latest one.
    `finished`: whether the round has no more updates.
    """

    id: int
    worker: str
    boot: str
    init: dict[str, JsonValue]
    round: int = 0
    updates: int = 0
    update: dict[str, JsonValue] | None = None
    finished: bool = False

    def begun(self) -> "Reception":
        """A copy in which the next round has begun; an unfinished earlier round is dropped."""
        return self.model_copy(
            update={"round": self.round + 1, "updates": 0, "update": None, "finished": False},
        )

    def announced(self, update: dict[str, JsonValue]) -> "Reception":
        """A copy with one more update. Raises InputError outside a round, and for an update that is too large."""
        if not self.round or self.finished:
            raise InputError("update_info: no update has begun: call /start_weight_update first")
        if self.updates >= MAX_UPDATES:
            raise InputError(f"update_info: found more than {MAX_UPDATES:,} of one update; send more tensors with each")
        size = len(json.dumps(update))
        if size > MAX_UPDATE_BYTES:
            raise InputError(
                f"update_info: found {size:,} bytes of JSON, at most {MAX_UPDATE_BYTES:,}: send the tensors in parts"
            )
        return self.model_copy(update={"updates": self.updates + 1, "update": update})

    def ended(self) -> "Reception":
        """A copy with a finished round; the same object if it is finished. Raises InputError without an update."""
        if not self.updates:
            raise InputError("nothing to finish: call /start_weight_update and /update_weights first")
        return self if self.finished else self.model_copy(update={"finished": True, "update": None})

    def is_followed(self, report: ReceptionReport) -> bool:
        """Whether the worker's report shows that it has completed all requested steps."""
        reached = (report.id, report.round, report.updates, report.finished)
        return report.joined and reached == (self.id, self.round, self.updates, self.finished)

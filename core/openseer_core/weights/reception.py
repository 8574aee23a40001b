"""Weights that a trainer sends, tensor by tensor, and one worker of the fleet receives for all.

To the sender the fleet is one receiver, so its group has one size however many workers come and go. The worker writes
what it receives into files of a folder that all workers see; these are published as any folder is, by their digest.
The fleet spec says what the worker is to do and its heartbeat what it has done, so that either side may be asked again.
"""

import json

from pydantic import JsonValue

from openseer_core.errors import InputError
from openseer_core.json_model import JsonModel
from openseer_core.worker.heartbeat import ReceptionReport

JOIN_SECONDS = 300.0
"""Longest wait of both sides for each other, the start of the receiving process included."""
BEGIN_SECONDS = 60.0
"""Longest time to make a folder, and to remove what an earlier round has left."""
UPDATE_SECONDS = 1800.0
"""Longest time of one update: the sender's tensors arrive and are written."""
FINISH_SECONDS = 900.0
"""Longest time until what has arrived is on disk, and its digest known."""
MAX_UPDATE_BYTES = 4 * 2**20
"""Longest description of one update, as JSON: the fleet spec carries it, and all workers read that. No call
takes more."""
MAX_UPDATES = 100_000
"""Updates of one round: each is a file."""


class Reception(JsonModel):
    """What the fleet spec says of it. A round is one set of weights, in one update or more.

    `worker`, `boot`: who receives. `init`: how it joins the sender's group, as the backend words it. `round`: begun so
    far; `updates`: announced in this one, `update`: the latest. `finished`: the round has no more.
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
        """With another round; what the last one has not finished is dropped."""
        return self.model_copy(
            update={"round": self.round + 1, "updates": 0, "update": None, "finished": False},
        )

    def announced(self, update: dict[str, JsonValue]) -> "Reception":
        """With one more update of the round. Raises InputError without a round, and for one that is too long."""
        if not self.round or self.finished:
            raise InputError("update_info: no update has begun: /start_weight_update comes first")
        if self.updates >= MAX_UPDATES:
            raise InputError(f"update_info: found more than {MAX_UPDATES:,} of one update; send more tensors with each")
        size = len(json.dumps(update))
        if size > MAX_UPDATE_BYTES:
            raise InputError(
                f"update_info: found {size:,} bytes of JSON, at most {MAX_UPDATE_BYTES:,}: send the tensors in parts"
            )
        return self.model_copy(update={"updates": self.updates + 1, "update": update})

    def ended(self) -> "Reception":
        """With its round finished; the same object where it is. Raises InputError where it has no tensors."""
        if not self.updates:
            raise InputError("nothing to finish: /start_weight_update and /update_weights come first")
        return self if self.finished else self.model_copy(update={"finished": True, "update": None})

    def is_followed(self, report: ReceptionReport) -> bool:
        """Whether the worker has done all that this says."""
        reached = (report.id, report.round, report.updates, report.finished)
        return report.joined and reached == (self.id, self.round, self.updates, self.finished)

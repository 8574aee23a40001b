"""When a GPU counts as sick: by the Xid errors that it reports, by what the NVIDIA driver says, by its memory.

A sick GPU costs its worker a drain, its node a condition, so it has to be the GPU that is ill, not a program on it, and
the worker must not fall ill again of what its predecessor has drained for. Not yet seen on hardware.
"""

from openseer_core.worker.metrics import WorkerMetrics

SICK_XIDS = frozenset({46, 48, 62, 64, 74, 79, 94, 95, 110, 119, 120, 136, 140, 143, 158, 167})
"""Errors for which NVIDIA's catalogue says to reset the GPU or to restart the machine, or that a part of it failed.

48, 94, 95, 140: memory; 62, 110, 119, 120, 143: its own processors; 74, 136: links; 46, 79, 158, 167: it does not
answer; 64: a row of memory that cannot be replaced. 94 says that the error stayed within one program, which has to be
restarted: this one. Not among them:
* 13, 31, 43, 45, 68, 69, 109 come from programs (the Kubernetes device plugin passes over those, 69 excepted);
* 63 (a row of memory was replaced) and 92 (many errors, all corrected) ask for nothing;
* 154 says that the action which the driver recommends has changed, also back to none: that is read by itself;
* 144 to 150 are links whose subcode decides: what matters of them shows in the recommended action.
"""
_ACTIONS = {
    1: "a reset of the GPU",
    2: "a reboot of the machine",
    3: "an end of the traffic between GPUs",
    4: "a drain and a reset of the GPU",
    5: "a recovery of the links between machines",
    6: "a reset of the bus",
    7: "a restart of the whole system",
}
_UNUSABLE = frozenset({1, 2, 6, 7})
"""Recommended actions without which nothing new can run."""


class Sickness:
    """What is wrong with one GPU since the worker looks at it. What was found once, stays: a sick GPU seldom answers.

    An uncorrected memory error counts when it comes while the worker looks. NVIDIA's counter goes on until the driver
    is loaded again, while from Ampere on the GPU takes the bad page out of use at once: the worker that had data there
    must go, its successor is well. A row of memory that could not be replaced counts whenever it was. So does a
    recommended action without which nothing can run; the others, only if they come while the worker looks.
    """

    def __init__(self) -> None:
        self.fault = ""
        """Why the GPU should not be used any longer, or ""."""
        self.xid: int | None = None
        """The last Xid error; one that makes sick is not replaced by one that does not: 45 mostly follows 48."""
        self._memory_errors: int | None = None
        self._action: int | None = None

    def note_xid(self, xid: int) -> None:
        """An Xid error."""
        if self.xid not in SICK_XIDS or xid in SICK_XIDS:
            self.xid = xid

    def note_lost(self) -> None:
        """The driver has lost it, or can use it only after a reset."""
        self._find("the driver has lost it, or asks for its reset")

    def note_memory_errors(self, count: int) -> None:
        """Uncorrected errors since the driver was loaded."""
        if self._memory_errors is None or count < self._memory_errors:  # the counter can be cleared
            self._memory_errors = count
        if count > self._memory_errors:
            self._find(f"{count - self._memory_errors} new uncorrected memory errors")

    def note_unreplaced_row(self) -> None:
        """A row of memory could not be replaced, now or earlier."""
        self._find("a row of its memory could not be replaced")

    def note_action(self, action: int) -> None:
        """What the driver recommends, as NVML numbers it; 0: nothing."""
        before, self._action = self._action, action
        if action in _UNUSABLE or (action and before is not None and action != before):
            self._find(f"the driver asks for {_ACTIONS.get(action, f'action {action}')}")

    def _find(self, fault: str) -> None:
        self.fault = self.fault or fault


def sick(metrics: WorkerMetrics) -> str | None:
    """Why the worker of these metrics should not go on: what an engine reports as `sick`, or what the readings of a
    GPU mean. None when all is well."""
    for name, value in metrics.items():
        if name == "sick":
            return str(value)
        gpu, _, reading = name.partition("_")
        if reading == "fault":
            return f"{gpu}: {value}"
        if reading == "xid" and int(value) in SICK_XIDS:
            return f"{gpu}: Xid {value}"
    return None

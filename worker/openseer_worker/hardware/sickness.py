"""Decides whether a GPU is sick: by its Xid errors, the NVIDIA driver's recommended actions, and its memory errors.

A sick GPU drains its worker and sets a condition on its node. So a program's errors must not count, and the error that
drained a worker must not drain its successor. Not yet tested on hardware.
"""

from openseer_core.worker.metrics import WorkerMetrics

SICK_XIDS = frozenset({46, 48, 62, 64, 74, 79, 94, 95, 110, 119, 120, 136, 140, 143, 158, 167})
"""Xid errors for which NVIDIA's catalogue recommends to reset the GPU or restart the machine, or states a failed part.

48, 94, 95, 140: memory; 62, 110, 119, 120, 143: internal processors; 74, 136: links; 46, 79, 158, 167: the GPU does not
answer; 64: a row of memory that cannot be remapped. 94 affects only one program, here the worker, which has to restart.
Not in this set:
* 13, 31, 43, 45, 68, 69, 109 are caused by programs (the Kubernetes device plugin ignores them, too, except 69);
* 63 (a row of memory was remapped) and 92 (many errors, all corrected) require no action;
* 154: the driver's recommended action has changed, possibly to none; the action is read separately;
* 144 to 150 are errors of links, severe or not by their subcode; the recommended action covers the severe ones.
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
"""Recommended actions without which no new work can run on the GPU."""


class Sickness:
    """The faults of one GPU since the worker began to read it. A fault is kept: a sick GPU seldom answers again.

    An uncorrected memory error counts only if it occurs while the worker reads. NVIDIA's counter grows until the driver
    is reloaded, but from Ampere on the GPU retires the bad page at once: only the worker with data in it has to drain.
    A row of memory that could not be remapped counts at any age, and so does a recommended action in _UNUSABLE. The
    other actions count only if they appear while the worker reads.
    """

    def __init__(self) -> None:
        self.fault = ""
        """The first fault, for people; "" while the GPU is well."""
        self.xid: int | None = None
        """The last Xid error in SICK_XIDS, without one the last of any kind; None without errors. Others do not replace
        an error in SICK_XIDS: 45 mostly follows 48."""
        self._memory_errors: int | None = None
        self._action: int | None = None

    def note_xid(self, xid: int) -> None:
        """Notes an Xid error."""
        if self.xid not in SICK_XIDS or xid in SICK_XIDS:
            self.xid = xid

    def note_lost(self) -> None:
        """Notes that the driver has lost the GPU, or can use it only after a reset."""
        self._find("the driver has lost it, or asks for its reset")

    def note_memory_errors(self, count: int) -> None:
        """Notes the number of uncorrected errors since the driver was loaded."""
        if self._memory_errors is None or count < self._memory_errors:  # the counter can be cleared
            self._memory_errors = count
        if count > self._memory_errors:
            self._find(f"{count - self._memory_errors} new uncorrected memory errors")

    def note_unreplaced_row(self) -> None:
        """Notes that a row of memory could not be remapped, now or earlier."""
        self._find("a row of its memory could not be replaced")

    def note_action(self, action: int) -> None:
        """Notes the driver's recommended action, by NVML's number; 0: none."""
        before, self._action = self._action, action
        if action in _UNUSABLE or (action and before is not None and action != before):
            self._find(f"the driver asks for {_ACTIONS.get(action, f'action {action}')}")

    def _find(self, fault: str) -> None:
        self.fault = self.fault or fault


def sick(metrics: WorkerMetrics) -> str | None:
    """Why the worker with these metrics must stop: its engine's `sick`, or a GPU's fault or Xid error; None if there is
    none."""
    for name, value in metrics.items():
        if name == "sick":
            return str(value)
        gpu, _, reading = name.partition("_")
        if reading == "fault":
            return f"{gpu}: {value}"
        if reading == "xid" and int(value) in SICK_XIDS:
            return f"{gpu}: Xid {value}"
    return None

"""Checks all GPUs of a machine: `python -m openseer_worker.hardware.probe`, in a pod that the operator creates.

Exit codes: 0 when all are well, GpuSickError's when one is sick, 1 when no GPU could be read.
"""

import sys
import time
from collections.abc import Callable

from openseer_core.errors import GpuSickError, OpenseerError
from openseer_core.worker.metrics import WorkerMetrics
from openseer_process.logs import start_log
from openseer_process.termination import report, write_termination_message
from openseer_worker.hardware.sickness import sick
from openseer_worker.hardware.telemetry import Telemetry

LOOK_SECONDS = 20.0
"""Duration of the check, in seconds. It detects the errors in this time, and earlier ones that still show in a reading:
see Sickness."""
READ_SECONDS = 0.5
"""Interval of readings, in seconds."""


def look(telemetry: Callable[[], WorkerMetrics], seconds: float = LOOK_SECONDS) -> str:
    """Checks the GPUs for `seconds`; returns a text with their number. Raises GpuSickError for a sick GPU, and
    OpenseerError if no GPU could be read."""
    until, seen = time.monotonic() + seconds, set[str]()
    while True:
        metrics = telemetry()
        illness = sick(metrics)
        if illness is not None:
            raise GpuSickError(illness)
        seen |= {name.partition("_")[0] for name in metrics}
        if time.monotonic() >= until:
            break
        time.sleep(READ_SECONDS)
    if not seen:
        raise OpenseerError(
            "no GPU could be read: the pod needs NVIDIA's runtime (chart value nodeRepair.runtimeClass), and a driver"
        )
    return f"{len(seen)} GPUs are healthy"


def main() -> int:
    """The entry point."""
    start_log()
    telemetry = Telemetry(environment={})
    try:
        write_termination_message(look(telemetry))
    except OpenseerError as error:
        return report(error)
    finally:
        telemetry.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A process that reads GPUs as a worker does, on command, through the library in LD_LIBRARY_PATH.

Lines of JSON. In: {"open": environment, "most": count}, {"read": true}, {"close": true},
{"pin": environment, "index": worker, "count": GPUs}. Out: one line with the result of each.
"""

import json
import sys
from typing import Any

from openseer_core.errors import InputError
from openseer_worker.hardware.devices import pin_to_gpus
from openseer_worker.hardware.sickness import sick
from openseer_worker.hardware.telemetry import Telemetry

READ_SECONDS = 0.05
RETRY_SECONDS = 0.1


def main() -> None:
    """Reads commands until the end of the input."""
    telemetry: Telemetry | None = None
    for line in sys.stdin:
        answer: Any = None
        match json.loads(line):
            case {"open": environment, "most": most}:
                telemetry = Telemetry(
                    environment=environment, most=most, read_seconds=READ_SECONDS, retry_seconds=RETRY_SECONDS
                )
            case {"read": True} if telemetry is not None:
                metrics = telemetry()
                answer = {"metrics": metrics, "sick": sick(metrics)}
            case {"close": True}:
                if telemetry is not None:
                    telemetry.close()
            case {"pin": environment, "index": index, "count": count}:
                try:
                    pin_to_gpus(index, count, environment)
                    answer = environment
                except InputError as error:
                    answer = str(error)
            case other:
                raise ValueError(other)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

"""How a process of a pod reports why it ends: one line in its log, the same in the pod's termination message."""

import logging
import os
from pathlib import Path

from openseer_core.errors import OpenseerError

log = logging.getLogger("openseer")

TERMINATION_LOG = "OPENSEER_TERMINATION_LOG"
"""Environment: the file that Kubernetes reads when the container has ended; unset outside of pods."""
MESSAGE_BYTES = 4096
"""The most that Kubernetes keeps of it."""


def report(error: OpenseerError) -> int:
    """Writes `error: …`, which a runner looks for in the log and the operator in the pod; gives the exit code."""
    line = f"error: {one_line(str(error))}"
    log.error("%s", line)
    write_termination_message(line)
    return error.exit_code


def write_termination_message(text: str) -> None:
    """The pod's termination message; nothing outside of pods."""
    file = os.environ.get(TERMINATION_LOG)
    if file:
        message = text.encode()[:MESSAGE_BYTES].decode(errors="ignore")
        try:
            Path(file).write_text(message, encoding="utf-8")
        except OSError as failure:
            log.warning("cannot write %s: %s", file, failure.strerror)


def one_line(text: str) -> str:
    """A heading and its lines as one."""
    head, *rest = [line.strip() for line in text.splitlines()] or [""]
    return f"{head}: {'; '.join(rest)}" if rest else head

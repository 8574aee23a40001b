"""Reports the error that ends a process: as one line in its log and in the pod's termination message."""

import logging
import os
from pathlib import Path

from openseer_core.errors import OpenseerError

log = logging.getLogger("openseer")

TERMINATION_LOG = "OPENSEER_TERMINATION_LOG"
"""Environment variable: path of the file that Kubernetes reads after the container's end; unset outside of pods."""
MESSAGE_BYTES = 4096
"""Limit of a termination message in Kubernetes, in bytes."""


def report(error: OpenseerError) -> int:
    """Writes `error: …` to the log, which the runner reads, and to the termination message, which the operator reads.
    Returns the exit code."""
    line = f"error: {one_line(str(error))}"
    log.error("%s", line)
    write_termination_message(line)
    return error.exit_code


def write_termination_message(text: str) -> None:
    """Writes the pod's termination message; does nothing outside of pods."""
    file = os.environ.get(TERMINATION_LOG)
    if file:
        message = text.encode()[:MESSAGE_BYTES].decode(errors="ignore")
        try:
            Path(file).write_text(message, encoding="utf-8")
        except OSError as failure:
            log.warning("cannot write %s: %s", file, failure.strerror)


def one_line(text: str) -> str:
    """Joins a heading and the lines below it into one line."""
    head, *rest = [line.strip() for line in text.splitlines()] or [""]
    return f"{head}: {'; '.join(rest)}" if rest else head

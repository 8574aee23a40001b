"""Deletes every RolloutJob and waits until none exists: `python -m openseer_operator.uninstall`.

The chart runs it before it removes the operator and the CRD. The operator still runs and removes the finalizers. A
remaining job would block the deletion of the CRD for ever.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from openseer_core.errors import OpenseerError
from openseer_operator.kube.api import Api, KubeConflictError, NotThereError
from openseer_process.logs import start_log

WAIT_SECONDS = 300.0
"""Default timeout for the deletion of all jobs, in seconds; OPENSEER_UNINSTALL_SECONDS overrides it."""
LOOK_SECONDS = 1.0
"""Interval of listing the remaining jobs, in seconds."""
MOST_NAMES = 10
"""Limit of the jobs that the error names."""

log = logging.getLogger(__name__)


class JobsLeftError(OpenseerError):
    """Some jobs still existed after the timeout."""


async def delete_jobs(api: Api, namespaces: Sequence[str], seconds: float) -> None:
    """Deletes the jobs of these namespaces (empty: of all namespaces), including jobs that are created during the
    deletion. Returns when none exists. Raises JobsLeftError after `seconds`, and KubeApiError."""
    give_up_at = time.monotonic() + seconds
    deleted: set[str] = set()
    while True:
        left: list[str] = []
        async for page in api.pages("RolloutJob", namespaces, metadata_only=True):
            for raw in page:
                meta = raw["metadata"]
                left.append(f"{meta['namespace']}/{meta['name']}")
                if meta["uid"] not in deleted:
                    with suppress(NotThereError, KubeConflictError):
                        await api.delete("RolloutJob", meta["namespace"], meta["name"], meta["uid"])
                    deleted.add(meta["uid"])
        if not left:
            log.info("%d jobs deleted, none is left", len(deleted))
            return
        if time.monotonic() >= give_up_at:
            names = ", ".join(sorted(left)[:MOST_NAMES]) + (", …" if len(left) > MOST_NAMES else "")
            raise JobsLeftError(
                f"{len(left)} jobs still exist after {seconds:.0f} s: {names}. Make sure that an operator runs, or "
                "remove their finalizers (kubectl patch rj NAME --type=merge -p "
                '\'{"metadata":{"finalizers":null}}\', which leaves their keys in their own stores); then uninstall '
                "again"
            )
        await asyncio.sleep(LOOK_SECONDS)


async def _run() -> None:
    api = await Api.connect()
    try:
        namespaces = tuple(filter(None, os.environ.get("OPENSEER_WATCH_NAMESPACES", "").split(",")))
        await delete_jobs(api, namespaces, float(os.environ.get("OPENSEER_UNINSTALL_SECONDS", WAIT_SECONDS)))
    finally:
        await api.close()


def main() -> int:
    """Entry point of the deletion; logs an expected error as one line."""
    start_log()
    try:
        asyncio.run(_run())
    except OpenseerError as error:
        log.error("error: %s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

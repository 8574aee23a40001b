"""Removal of a serving job's rows after their batch was acknowledged."""

import asyncio
import logging
from pathlib import Path

from openseer_core.errors import OpenseerError
from openseer_store.port import Store
from openseer_store.routed.folders import remove_batch, row_batches

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""Interval between two checks for deleted batches, in seconds."""


async def keep_rows_within(store: Store, folder: Path | None) -> None:
    """Removes the rows of deleted batches every LOOK_SECONDS, until cancelled. `folder`: None if there are no rows."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            if folder is not None:
                await remove_rows(store, folder)
        except OpenseerError as error:
            log.warning("%s: the check for rows of deleted batches failed: %s", folder, error)


async def remove_rows(store: Store, folder: Path) -> None:
    """Removes the rows of deleted batches once. If groups of a batch were carried to another one, the batch's rows stay
    for STALE_SECONDS."""
    # Read before the batches: a batch that is opened in between has no rows in `found`.
    found = await asyncio.to_thread(row_batches, folder)
    for number in found:
        record = await store.batch(number)
        if record is None or record.forgotten:
            carried = record is None or record.progress.groups_carried > 0
            await asyncio.to_thread(remove_batch, folder, number, only_stale=carried)

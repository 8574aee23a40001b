"""Audits a run folder, with the store in the folder or in the manifest, and reads the audit of a run in a cluster."""

from contextlib import AsyncExitStack

import msgspec

from openseer_core.errors import InputError
from openseer_core.ids import BATCH_JOB_BATCH
from openseer_core.manifest.job import RolloutJob
from openseer_driver.audit.audit import AuditReport, audit
from openseer_driver.run_folder import RunFolder
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import DriverStore


async def audit_run(folder: RunFolder, job: RolloutJob) -> AuditReport:
    """Audits a run that is not in progress. Raises InputError if its store is missing, StoreError if it is in use."""
    async with AsyncExitStack() as stack:
        url = job.spec.store.url
        if url is None:
            if not folder.store_folder.is_dir():
                raise InputError(f"{folder.path}: its folder store/ is missing, and the audit needs it")
            url = await stack.enter_async_context(EmbeddedRedis(folder.store_folder))
        store = await open_store(url, job.name, job.namespace)
        stack.push_async_callback(store.close)
        return await audit(store, folder, [BATCH_JOB_BATCH])


async def audit_ended(folder: RunFolder, store: DriverStore) -> AuditReport:
    """Audits a run with a complete batch while its store is still running, and writes the report to audit.json."""
    report = await audit(store, folder, [BATCH_JOB_BATCH], finished=True)
    folder.write_whole(folder.audit_file, msgspec.json.format(msgspec.json.encode(report.as_dict())) + b"\n")
    return report


def kept_audit(folder: RunFolder) -> AuditReport | None:
    """The report in audit.json of a run in a cluster, whose store is not on this machine; None for any other run.

    Raises InputError if the file is damaged.
    """
    if folder.store_folder.is_dir() or not folder.audit_file.is_file():
        return None
    try:
        return msgspec.json.decode(folder.audit_file.read_bytes(), type=AuditReport)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"{folder.audit_file}: cannot be read: {error}") from error

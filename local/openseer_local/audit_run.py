"""An audit of a run folder: its store is opened again, without workers, and read."""

from contextlib import AsyncExitStack

from openseer_core.errors import InputError
from openseer_core.job import RolloutJob
from openseer_local.audit import AuditReport, audit
from openseer_local.run_folder import RunFolder
from openseer_local.submission import BATCH
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis


async def audit_run(folder: RunFolder, job: RolloutJob) -> AuditReport:
    """Audits a run that is not going on. Raises InputError when there is none, StoreError when its store is in use."""
    if not folder.exists():
        raise InputError(f"{folder.path}: no run here; give the folder of one, such as runs/arithmetic")
    async with AsyncExitStack() as stack:
        url = job.spec.store.url
        if url is None:
            if not folder.store_folder.is_dir():
                raise InputError(f"{folder.path}: its store/ is gone; without it nothing can be proved")
            url = await stack.enter_async_context(EmbeddedRedis(folder.store_folder))
        store = await open_store(url, job.name, job.namespace)
        stack.push_async_callback(store.close)
        return await audit(store, folder, [BATCH])

"""The backends of a pool: opens a pool, and checks that workers on this machine can use it."""

from collections.abc import Callable, Mapping

from openseer_core.manifest.fleet import PoolBackend
from openseer_worker.kv_pool.block_store import BlockStore
from openseer_worker.kv_pool.directory import DirectoryBlocks
from openseer_worker.kv_pool.mooncake.client import MooncakeBlocks
from openseer_worker.kv_pool.mooncake.installed import check_programs
from openseer_worker.kv_pool.places import EnginePool, make_folder

_BLOCKS: Mapping[PoolBackend, Callable[[EnginePool], BlockStore]] = {
    "shared-directory": lambda pool: DirectoryBlocks(pool.folder),
    "mooncake": lambda pool: MooncakeBlocks(pool.master),
}


def open_blocks(pool: EnginePool) -> BlockStore:
    """Returns the block store of a pool, not yet connected."""
    return _BLOCKS[pool.backend](pool)


def check_pool(pool: EnginePool) -> None:
    """Raises InputError for a pool that workers on this machine cannot use."""
    if pool.backend == "mooncake":
        check_programs()
    else:
        make_folder(pool)

"""Opens a job's store by its URL."""

from openseer_store.port import Store
from openseer_store.redis_dial import Dial
from openseer_store.redis_link import RETRY_SECONDS
from openseer_store.redis_store import RedisStore
from openseer_store.reply_limit import USUAL_LIMIT, ReplyLimit


async def open_store(
    url: str,
    job: str,
    namespace: str = "default",
    *,
    retry_seconds: float = RETRY_SECONDS,
    loading_seconds: float | None = None,
    tells_again: bool = False,
    others_seconds: float = 0.0,
    dial: Dial | None = None,
    limit: ReplyLimit = USUAL_LIMIT,
) -> Store:
    """The store of `job` at redis://, rediss:// or unix://, checked to be there.

    `tells_again`: what was written last through it is written again to a server that restarted, before any other call,
    for it may have lost that. `others_seconds`: where several processes do so, how long each waits for the others to
    have told theirs. `dial`: gives the address for each connection, where not every host may be dialled; what it raises
    is raised, and no answer of such a store may be longer than `limit`. Raises InputError for a URL of another kind,
    StoreError for a server that cannot be used, and StoreUnavailableError when there is no answer within
    `retry_seconds`; StoreLoadingError, one of these, when the server has said for `loading_seconds` that it loads its
    data (unset: LOADING_FACTOR times as long).
    """
    store = RedisStore(
        url,
        job,
        namespace,
        retry_seconds=retry_seconds,
        loading_seconds=loading_seconds,
        tells_again=tells_again,
        others_seconds=others_seconds,
        dial=dial,
        limit=limit,
    )
    try:
        await store.connect()
    except BaseException:
        await store.close()
        raise
    return store

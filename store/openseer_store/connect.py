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
    """The store of `job` at redis://, rediss:// or unix://, after a successful call.

    `tells_again`: repeats recent writes to a server that restarted, before any other call, because it may have lost
    them. `others_seconds`: if several processes do so, how long each waits for the repeats of the others. `dial`:
    returns the addresses for each connection to a store of an untrusted user; its exceptions are passed on, and no
    reply may be longer than `limit`. Raises InputError for a URL of another kind, StoreError for a server that cannot
    be used, and StoreUnavailableError when there is no reply within `retry_seconds`; StoreLoadingError, a subclass,
    when the server has reported for `loading_seconds` that it loads its data (unset: LOADING_FACTOR times
    `retry_seconds`).
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

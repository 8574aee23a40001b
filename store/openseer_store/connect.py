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
    """Opens the store of `job` at a redis://, rediss:// or unix:// URL, and checks that it answers.

    `tells_again`: after a restart of the server, the client repeats its recent writes before any other call, because
    the server may have lost them. `others_seconds`: with several such processes, the time that each waits for the
    others' repeats. `dial`: returns the addresses for each connection to the store of an untrusted user; its exceptions
    are passed on, and no reply may be longer than `limit`. `loading_seconds`: default LOADING_FACTOR times
    `retry_seconds`.

    Raises InputError for a URL of another kind, StoreError for a server that cannot be used, and StoreUnavailableError
    if there is no reply within `retry_seconds`. Raises its subclass StoreLoadingError if the server has reported for
    `loading_seconds` that it loads its data.
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

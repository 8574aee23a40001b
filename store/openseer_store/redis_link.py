"""The link to Redis: it checks connections, retries calls within time limits, and raises errors with a remedy."""

# redis comes without complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
import asyncio
import hashlib
import logging
import random
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import redis.exceptions
from redis.asyncio.connection import AbstractConnection, Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from openseer_core.errors import StoreError, StoreLoadingError, StoreUnavailableError
from openseer_store.codec import pack
from openseer_store.recent_writes import Check, RecentWrite, RecentWrites, StoreCall
from openseer_store.redis_dial import CONNECT_SECONDS, Dial, dialled
from openseer_store.redis_pool import BROKEN, RedisPool, refusal
from openseer_store.redis_url import connection_kind, public_url
from openseer_store.replies import read_info
from openseer_store.reply_limit import UNFIT, USUAL_LIMIT, ReplyLimit, UnfitReplyError

log = logging.getLogger(__name__)

OLDEST = (6, 2)
"""Oldest Redis version that has all used commands."""
REPLY_SECONDS = 30.0
"""Timeout of one reply, in seconds. A script takes milliseconds; a write to an append-only file on a slow disk takes
seconds."""
RETRY_SECONDS = 600.0
"""Time for which a call is retried, in seconds, in workers and drivers alike: a moved pod first needs a node, an image
and its volume."""
LOADING_FACTOR = 6.0
"""Factor of the retry time while a server reports that it loads its data. It reads about 100 MB of its append-only file
per second, so one hour (6 * RETRY_SECONDS) suffices for 360 GB."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
PAUSE_SHARE = 0.25
"""Pause between two tries as a share of the time waited so far: a call notices a returning store at most this share too
late."""
TELL_SECONDS = 3.0
"""Time, in seconds, that a client waits for other clients' repeated writes in a new epoch. It is longer than
LONGEST_PAUSE_SECONDS, so that all clients have noticed the epoch."""

BOUNDS = ("epoch", "purge")
"""The verbs that also run without an epoch and during a purge, when all others are refused."""
ADVICE = {
    "LOADING": "it still loads its data; wait, or read its log",
    "MISCONF": "it cannot write to its disk: free some space or repair the volume",
    "OOM": "its memory is full: raise its maxmemory, acknowledge or delete batches",
    "READONLY": "it is a replica: give the URL of the primary",
    "NOREPLICAS": "it has too few replicas to accept writes",
    "MASTERDOWN": "its primary is down",
    "CLUSTERDOWN": "its cluster is down",
    "TRYAGAIN": "its cluster is moving slots",
    "BUSY": "another client's script blocks it",
    "NOEPOCH": "it has lost all its data",
    "PURGING": "the job's data are being deleted from it",
}
"""Error codes after which a call is retried, because the error ends by itself or by an admin's action: code →
remedy."""
_CODES = re.compile(r"\b(" + "|".join(ADVICE) + r")\b")
_REFUSED = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)


class _NewEpochError(Exception):
    """The store is in a new epoch: recent writes have to be repeated before the next call."""


class TooOldError(redis.exceptions.RedisError):
    """The server's version is too old."""


@cache
def script(verb: str) -> tuple[str, str]:
    """The Lua source of a verb and its SHA-1."""
    folder = resources.files("openseer_store") / "lua"
    front = ("_shared",) if verb in BOUNDS else ("_shared", "_claimers", "_numbers", "_clock", "_endings")
    text = "\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in (*front, verb))
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """Makes the calls to one Redis. Every new connection first checks the server and its epoch."""

    def __init__(
        self,
        url: str,
        prefix: str,
        retry_seconds: float = RETRY_SECONDS,
        loading_seconds: float | None = None,
        *,
        tells_again: bool = False,
        others_seconds: float = 0.0,
        dial: Dial | None = None,
        limit: ReplyLimit = USUAL_LIMIT,
    ) -> None:
        """`tells_again`: in a new epoch the recent writes are repeated before any other call.

        `others_seconds`: time that this client then waits for the repeats of other clients. Afterwards it repeats its
        own writes once more, because they may depend on those, and only then other calls continue. `dial`: returns the
        addresses for each new connection to a host; its exceptions are passed on. With `dial` the store is untrusted:
        options of its URL are restricted, and its replies may not be longer than `limit`.
        """
        kind, options = connection_kind(url, foreign=dial is not None)
        self.shown_url = public_url(url)
        self._prefix = prefix
        self._retry_seconds = retry_seconds
        self._loading_seconds = LOADING_FACTOR * retry_seconds if loading_seconds is None else loading_seconds
        self._run_id = ""
        self.epoch = 0
        """The latest epoch that a connection has seen, 0 before the first connection."""
        self._recent = RecentWrites() if tells_again else None
        self._repeated_to = 0
        self._others_seconds = others_seconds
        self._telling = asyncio.Lock()
        make: Any = dialled(kind, dial, limit) if dial is not None and issubclass(kind, Connection) else kind
        settings = {
            "socket_connect_timeout": CONNECT_SECONDS,
            **options,
            "socket_timeout": None,  # the pool limits the time of a whole call
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "redis_connect_func": self._check_server,
        }
        self._pool = RedisPool(lambda: make(**settings))

    async def run(self, verb: str, arguments: object, *blobs: bytes, at: str = "", again: bool = False) -> Any:
        """Runs one verb. `at`: the time to pass, or "" for the server's clock. `again`: keeps the call as a write to
        repeat (see `note`)."""
        reply = await self._retrying(self._call_of(verb, arguments, blobs, at))
        if again:
            self.note(verb, arguments, *blobs, at=at)
        return reply

    def note(self, verb: str, arguments: object, *blobs: bytes, at: str = "") -> None:
        """Keeps a call, to repeat it if the store loses it (with `tells_again`)."""
        if self._recent is not None:
            size = len(pack(arguments)) + sum(map(len, blobs))
            self._recent.note(verb, size, self._call_of(verb, arguments, blobs, at))

    def _call_of(self, verb: str, arguments: object, blobs: Sequence[bytes], at: str) -> StoreCall:
        text, sha = script(verb)
        tail = (1, self._prefix, at, pack(arguments), *blobs)
        return lambda check: self._evaluate(text, sha, tail, check)

    async def command(self, *parts: str | int | bytes, patience: float = 0.0) -> Any:
        """Runs one plain command. `patience`: seconds that the command itself may wait at the server."""
        seconds, waits = REPLY_SECONDS + patience, patience > 0
        return await self._retrying(lambda check: self._pool.call(parts, seconds, waits=waits, check=check))

    async def begin_epoch(self) -> None:
        """Begins an epoch on the same server: numbers issued so far become invalid, and the kept writes are dropped."""
        await self.command("PING")
        self.epoch = self._repeated_to = int(await self.run("epoch", (self._run_id, self.epoch + 1)))
        if self._recent is not None:
            self._recent = RecentWrites()

    async def close(self) -> None:
        """Closes all connections."""
        await self._pool.close()

    # ---- one call

    async def _evaluate(self, text: str, sha: str, tail: Sequence[Any], check: Check) -> Any:
        try:
            return await self._pool.call(("EVALSHA", sha, *tail), REPLY_SECONDS, check=check)
        except redis.exceptions.NoScriptError:
            await self._pool.call(("SCRIPT", "LOAD", text), REPLY_SECONDS, check=check)
            return await self._pool.call(("EVALSHA", sha, *tail), REPLY_SECONDS, check=check)

    async def _check_server(self, connection: AbstractConnection) -> None:
        """Makes the first calls on a new connection: checks the server's version, and begins or reads the epoch of its
        process."""
        await connection.on_connect()
        await connection.send_command("INFO", "server", check_health=False)
        reply: Any = await connection.read_response(disable_decoding=True)
        if not isinstance(reply, bytes):
            raise UnfitReplyError(UNFIT)
        info = read_info(reply)
        version = info.get("redis_version", "unknown")
        numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
        if numbers < OLDEST:
            raise TooOldError(f"is version {version}; openseer needs {OLDEST[0]}.{OLDEST[1]} or later")
        self._run_id = info.get("run_id", "")
        text, _ = script("epoch")
        arguments = pack([self._run_id, self.epoch])
        await connection.send_command("EVAL", text, 1, self._prefix, "", arguments, check_health=False)
        epoch: Any = await connection.read_response(disable_decoding=True)
        try:
            self.epoch = max(self.epoch, int(epoch))
        except (TypeError, ValueError):
            raise UnfitReplyError(UNFIT) from None

    # ---- trying again

    async def _retrying(self, call: StoreCall) -> Any:
        """Makes a call and returns its reply. If the store is in a new epoch, first repeats the recent writes, which
        the store may have lost."""
        while True:
            try:
                reply = await self._answer_to(call, self._check_repeated)
            except _NewEpochError:
                await self._repeat_writes()
                continue
            self._repeated_to = self._repeated_to or self.epoch
            if self._recent is not None:
                self._recent.drop_old()
            return reply

    def _check_repeated(self) -> None:
        if self._recent is not None and self._repeated_to not in (0, self.epoch):
            raise _NewEpochError

    async def _repeat_writes(self) -> None:
        async with self._telling:
            while self._recent is not None and self._repeated_to != self.epoch:
                epoch, writes = self.epoch, self._recent.writes()
                await self._repeat(writes)
                if self._others_seconds:
                    await asyncio.sleep(self._others_seconds)
                    await self._repeat(writes)
                self._repeated_to = epoch

    async def _repeat(self, writes: Sequence[RecentWrite]) -> None:
        for write in writes:
            refusal = write.refusal(await self._answer_to(write.call, lambda: None))
            if refusal:
                log.warning("redis at %s refused to repeat the write %s: %s", self.shown_url, write.verb, refusal)

    async def _answer_to(self, call: StoreCall, check: Check) -> Any:
        """Makes a call, and retries it within the time limits. Every verb may be repeated: a verb whose reply was lost
        finds its own effect, and the leases of a lost claim expire."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        give_up_at = began + self._retry_seconds
        logged = ""
        while True:
            try:
                return await call(check)
            except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
                why = self._advice(error)
            loads = why == ADVICE["LOADING"]
            if loads:
                give_up_at = min(loop.time() + self._retry_seconds, began + self._loading_seconds)
            waited = min(loop.time() - began, self._retry_seconds)  # the loading of the data may have taken longer
            pause = max(FIRST_PAUSE_SECONDS, min(PAUSE_SHARE * waited, LONGEST_PAUSE_SECONDS))
            if loop.time() + pause > give_up_at:
                kind = StoreLoadingError if loads else StoreUnavailableError
                seconds = self._loading_seconds if loads else self._retry_seconds
                raise kind(f"redis at {self.shown_url} gave no answer for {seconds:g} s: {why}")
            if why != logged:
                log.info("waiting for redis at %s: %s", self.shown_url, "the store loads its data" if loads else why)
                logged = why
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    def _advice(self, error: Exception) -> str:
        """The remedy for an error after which the call is retried. Raises StoreError for any other error."""
        if isinstance(error, (TooOldError, UnfitReplyError)):
            raise StoreError(f"redis at {self.shown_url} {error}") from None
        if isinstance(error, _REFUSED) or isinstance(error.__cause__, _REFUSED):  # redis-py wraps errors of sockets
            raise StoreError(f"redis at {self.shown_url} refused the user name or password") from None
        found = _CODES.search(refusal(error))
        if found:
            return ADVICE[found[1]]
        if isinstance(error, BROKEN):
            return "check that it runs and that this machine can reach it"
        raise StoreError(f"redis at {self.shown_url} refused a command: {error}") from None

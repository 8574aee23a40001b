"""The store on Redis: each verb is one Lua script, run once per call for any number of items."""

from dataclasses import astuple

from openseer_core.errors import (
    BatchClosedError,
    DriverFencedError,
    FleetSpecMovedError,
    FreedError,
    NameTakenError,
    RequestStateError,
)
from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_core.queue import budgets
from openseer_core.queue.batch import BatchRecord, OpenBatch
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.messages import (
    FASTER,
    REAP_LIMIT,
    Claim,
    ClaimQuery,
    Delta,
    ExtendReply,
    Finish,
    Reply,
    Rescore,
)
from openseer_core.queue.siblings import SiblingQuery, Siblings
from openseer_core.queue.states import Event
from openseer_core.tokens import ITEM_BYTES
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.worker.heartbeat import WORKING_STATES, Heartbeat, HeartbeatReply
from openseer_store import codec
from openseer_store.redis_reading import RedisReading

REMEMBER_SECONDS = 24 * 3600
"""Time, in seconds, for which the counts and the idempotency key of a deleted batch stay."""
SHORTEST_BLOCK_SECONDS = 0.01
"""Shortest wait for a call, in seconds: Redis waits without limit if the time rounds to 0 ms."""
FORGET_SECONDS = 24 * 3600
"""Time, in seconds, after which unreachable workers of a deleted job are assumed dead; until then the epoch is kept,
which invalidates their fences."""
SCAN_COUNT = 1000
"""Number of keys of the server that one call of a purge scans."""
PURGING_SECONDS = 5
"""If a purge is interrupted, all other calls are refused for this time, in seconds, after its last call."""


class RedisStore(RedisReading):
    """A job's store on a Redis server: the writing verbs; RedisReading has the reading ones."""

    # ---- the worker's verbs

    async def claim(self, worker: WorkerId, query: ClaimQuery) -> list[Claim]:
        arguments = (
            worker.name,
            str(worker),
            query.version,
            query.lanes,
            query.slots,
            query.blocks,
            [astuple(group) for group in query.layout.groups],
            query.quantum,
            query.context_tokens,
            query.margin,
            query.slack,
            query.lease_seconds,
            query.max_losses,
            query.number,
            budgets.CLAIM_REQUESTS,
            budgets.CLAIM_BYTES,
            budgets.HEAD_WINDOW,
            query.adapters,
            query.pace,
            FASTER,
        )
        return codec.read_claims(await self._link.run("claim", arguments, at=self._at()))

    async def extend(
        self,
        worker: WorkerId,
        deltas: list[Delta],
        rescores: list[Rescore],
        *,
        lease_seconds: float,
        version: str,
        lanes: tuple[str, ...],
        adapters: tuple[str, ...] = (),
    ) -> ExtendReply:
        rows = [codec.delta_row(delta) for delta in deltas]
        rescore_rows = [codec.rescore_row(rescore) for rescore in rescores]
        arguments = (worker.name, (version, *adapters), lanes, lease_seconds, rows, rescore_rows)
        reply = await self._link.run("extend", arguments, *codec.delta_bytes(deltas), at=self._at())
        return codec.read_extend(reply)

    async def complete(self, worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        rows = [codec.finish_row(finish) for finish in finishes]
        blobs = codec.delta_bytes([finish.delta for finish in finishes])
        return [codec.read_reply(row) for row in await self._link.run("complete", rows, *blobs, at=self._at())]

    async def give_back(self, worker: WorkerId, deltas: list[Delta], *, lost: bool = False) -> list[Reply]:
        rows = [codec.delta_row(delta) for delta in deltas]
        reply = await self._link.run("give_back", (lost, rows), *codec.delta_bytes(deltas), at=self._at())
        return [codec.read_reply(row) for row in reply]

    async def wait_for_work(
        self, version: str, lanes: tuple[str, ...], seconds: float, adapters: tuple[str, ...] = ()
    ) -> bool:
        places = [f"{len(name.encode())}:{name}:{lane}" for name in (version, *adapters) for lane in lanes]
        keys = [f"{self._prefix}:calls:{place}" for place in places]
        block = max(seconds, SHORTEST_BLOCK_SECONDS)
        return await self._link.command("BLPOP", *keys, f"{block:.3f}", patience=block) is not None

    async def siblings(self, queries: list[SiblingQuery], limit_bytes: int) -> list[Siblings]:
        rows = [codec.query_row(query) for query in queries]
        return codec.read_siblings(await self._link.run("siblings", (rows, limit_bytes)))

    async def heartbeat(self, worker: WorkerId, info: Heartbeat) -> HeartbeatReply:
        spent = (float(info.idle_seconds), float(info.busy_seconds))
        limit = info.metrics.limits.request_tokens
        arguments = (worker.name, worker.boot, info.state in WORKING_STATES, *spent, limit, info.metrics.free_pace)
        drain, revision, largest = await self._link.run("heartbeat", arguments, codec.pack_info(info), at=self._at())
        return HeartbeatReply(drain=bool(drain), revision=revision, largest=largest)

    async def fleet_spec(self) -> FleetSpec:
        data, revision, base = await self._link.run("fleet_spec", ())
        fleet_spec = FleetSpec.model_validate_json(data, extra="ignore") if data else FleetSpec()
        return fleet_spec.read_at(base).model_copy(update={"revision": revision})

    async def deregister(self, worker: WorkerId) -> None:
        await self._link.run("deregister", (worker.name, worker.boot), at=self._at())

    # ---- the driver's verbs

    async def acquire_driver(self, boot: str, held: int = 0) -> int:
        fence = int(await self._link.run("acquire_driver", (boot, held)))
        if not fence:
            raise self._fenced(held)
        return fence

    def _fenced(self, driver: int) -> DriverFencedError:
        return DriverFencedError(f"driver {driver} of {self._prefix}: another driver has taken over; this one stops")

    async def submit(self, groups: list[GroupSpec], driver: int | None = None) -> int:
        new = requests = 0
        names: list[str] = []
        blobs: list[bytes] = []
        for spec in groups:
            names.append(str(spec.id))
            blobs += (codec.pack_row(spec), codec.pack_spec(spec))
            requests += spec.size
            is_full = len(names) >= budgets.SUBMIT_GROUPS or requests >= budgets.SUBMIT_REQUESTS
            if is_full or sum(map(len, blobs)) >= budgets.SUBMIT_BYTES:
                new += await self._submit(names, blobs, driver)
                names, blobs, requests = [], [], 0
        return new + (await self._submit(names, blobs, driver) if names else 0)

    async def _submit(self, names: list[str], blobs: list[bytes], driver: int | None) -> int:
        arguments = (names, driver if driver is not None else False)
        new, refused, reason = await self._link.run("submit", (*arguments, False), *blobs)
        taken = names.index(refused.decode()) if refused else len(names)
        if taken:
            self._link.note("submit", (names[:taken], arguments[1], True), *blobs[: 2 * taken])
        if reason == b"fenced":
            raise self._fenced(driver or 0)
        if reason == b"taken":
            group = GroupId.parse(refused.decode())
            raise NameTakenError(group.batch, group.name)
        if refused:
            raise BatchClosedError(refused.decode().partition("/")[0])
        return int(new)

    async def seal(self, batch: int, driver: int | None = None) -> None:
        fence = codec.or_false(driver)
        expected = await self._link.run("seal", (batch, fence, False))
        if expected < 0:
            raise self._fenced(driver or 0)
        self._link.note("seal", (batch, fence, expected))

    async def acknowledge(self, batch: int, cursor: int, driver: int | None = None) -> None:
        arguments = (batch, cursor, codec.or_false(driver))
        while (answer := await self._link.run("acknowledge", (*arguments, budgets.STEP_REQUESTS))) > 1:
            pass
        if not answer:
            raise self._fenced(driver or 0)
        # The repeat deletes no data (limit 0): a repeated turn may follow that needs them.
        self._link.note("acknowledge", (*arguments, 0))

    async def request_drain(self, worker: str, revision: int | None = None) -> None:
        await self._act("request_drain", (worker, codec.or_false(revision)))

    async def reap(self, max_losses: int, *, everything: bool = False) -> int:
        total = 0
        while True:
            count = await self._link.run("reap", (max_losses, everything), at=self._at())
            total += count
            if not everything or count < REAP_LIMIT:
                return total

    async def end(self, batch: int, event: Event = Event.ABORT, revision: int | None = None) -> int:
        start, ended = 0, 0
        while names := await self.group_names(batch, start, budgets.STEP_NAMES):
            ended += await self._end_groups([GroupId(batch, name) for name in names], event, None, revision)
            start += len(names)
        return ended

    async def purge(self, *, forget: bool = False) -> None:
        await self._link.begin_epoch()
        limits = (SCAN_COUNT, PURGING_SECONDS, FORGET_SECONDS if forget else False)
        place = await self._link.run("purge", ("0", *limits))
        while place != b"0":
            place = await self._link.run("purge", (place.decode(), *limits))

    # ---- the trainer's verbs

    async def open_batch(self, batch: OpenBatch) -> tuple[BatchRecord, bool]:
        arguments = (batch.version, batch.spec, batch.key)
        number, new = await self._link.run("open_batch", (*arguments, False, batch.carry), at=self._at())
        self._link.note("open_batch", (*arguments, number, batch.carry), at=self._at())
        [record] = codec.read_batches(await self._link.run("batches", (number,)))
        return record, bool(new)

    async def grow(self, spec: GroupSpec, present: int) -> None:
        await self._link.run("grow", (str(spec.id), present, spec.size), codec.pack_spec(spec), again=True)

    async def end_groups(self, groups: list[GroupId], event: Event, index: int | None = None) -> int:
        return await self._end_groups(groups, event, index, None)

    async def _end_groups(self, groups: list[GroupId], event: Event, index: int | None, revision: int | None) -> int:
        place = first = total = 0
        only, rest = codec.or_false(index), (budgets.STEP_REQUESTS, codec.or_false(revision))
        while step := codec.group_names(groups[place : place + budgets.STEP_GROUPS]):
            arguments = (event.value, step, only, first, *rest)
            ended, done, first = await self._act("end_requests", (*arguments, False))
            if revision is None:  # else not kept: the batch controller itself repeats such an action
                self._link.note("end_requests", (*arguments, True), at=self._at())
            place += done
            total += ended
        return total

    async def _act(self, verb: str, arguments: tuple[object, ...]) -> list[int]:
        """Runs an action that may depend on a revision of the fleet spec. Raises FleetSpecMovedError if the fleet spec
        has another revision."""
        done = await self._link.run(verb, arguments, at=self._at())
        if done[0] < 0:
            raise FleetSpecMovedError(f"{verb}: the fleet spec has changed meanwhile")
        return done

    async def carry(self, groups: list[GroupId], batch: int, version: str, stale: tuple[str, ...] = ()) -> int:
        place = total = 0
        while True:
            step = codec.group_names(groups[place : place + budgets.STEP_GROUPS])
            are_last = place + len(step) == len(groups)
            arguments = (step, batch, version, stale, budgets.MOVE_REQUESTS, budgets.STEP_BYTES, are_last)
            moved, done = await self._link.run("carry", arguments, at=self._at())
            place += done
            total += moved
            if place == len(groups):
                return total

    async def change_version(
        self, batch: int, version: str, stale: tuple[str, ...] = (), revision: int | None = None
    ) -> None:
        start, last = 0, 0
        while not last:
            places = (start, start + budgets.STEP_GROUPS - 1)
            arguments = (batch, *places, version, stale, budgets.STEP_REQUESTS, codec.or_false(revision))
            seen, last = await self._act("change_version", arguments)
            start += seen

    async def go_on(self, request: RequestId, turn: int, tokens: bytes) -> bool:
        arguments = (str(request.group), request.index, turn)
        answer = await self._link.run("go_on", (*arguments, False), tokens, at=self._at())
        outcome = answer[0].decode()
        if outcome == "unknown":
            raise KeyError(request)
        _, state, current, length, limit = answer
        if outcome == "other":
            raise RequestStateError(f"{request}: turn {turn} was continued with other tokens before")
        if outcome == "state":
            raise RequestStateError(f"{request} is {state.decode()} in turn {current}: turn {turn} has not ended")
        if outcome == "freed":
            raise FreedError(f"{request} was acknowledged in a sealed batch: its data are gone")
        if outcome == "room":
            added = len(tokens) // ITEM_BYTES
            raise RequestStateError(f"{request} has no room: {length} + {added} of {int(limit)}")
        self._link.note("go_on", (*arguments, True), tokens, at=self._at())
        return True

    async def judge(self, batch: int, verdicts: dict[str, bool]) -> int:
        known, rows = 0, list(verdicts.items())
        for first in range(0, len(rows), budgets.STEP_NAMES):
            piece = rows[first : first + budgets.STEP_NAMES]
            found, number = await self._link.run("judge", (batch, piece, False))
            self._link.note("judge", (batch, piece, number))
            known += found
        return known

    async def forget(self, batch: int) -> None:
        arguments = (batch, budgets.STEP_REQUESTS, REMEMBER_SECONDS)
        while await self._link.run("forget", arguments, at=self._at(), again=True):
            pass

    async def swap_fleet_spec(self, fleet_spec: FleetSpec) -> bool:
        data = fleet_spec.model_dump_json(exclude_defaults=True).encode()
        if not await self._link.run("swap_fleet_spec", (fleet_spec.revision, False), data):
            return False
        self._link.note("swap_fleet_spec", (fleet_spec.revision, True), data)
        return True

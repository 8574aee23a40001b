"""A played API for the client's own tests, with the faults of a network."""

import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from openseer_client import Client, Limits
from openseer_core.wire.batches import Batch, BatchList, BatchMetrics, BatchSpec, BatchState, Group, UploadReceipt
from openseer_core.wire.results import GroupItem, ResultItem, ResultPage

URL = "http://api.test/jobs/team/math"
QUICK = Limits(unreachable=60.0, busy=60.0, first_delay=0.001, longest_delay=0.01)

Handler = Callable[[httpx.Request], httpx.Response]
Fault = Callable[[httpx.Request, Handler], httpx.Response]


def result(group: str, index: int = 0, *, cursor: int = 0, turn: int = 0, status: str = "ok") -> ResultItem:
    """A result of three tokens."""
    return ResultItem.model_validate(
        {
            "cursor": cursor,
            "batch": 1,
            "group": group,
            "index": index,
            "turn": turn,
            "status": status,
            "finish_reason": "stop",
            "weights_version": "initial",
            "versions": [],
            "prompt_token_ids": [1, 2],
            "token_ids": [3, 4, 5],
            "logprobs": [-0.1, -0.2, -0.3],
            "sampled": [(0, 3)],
            "chunks": [],
            "enqueued_at": 0.0,
            "finished_at": 1.0,
        }
    )


def end(group: str, size: int = 1, *, cursor: int = 0, aborted: int = 0) -> GroupItem:
    """The event that closes a group."""
    return GroupItem(
        cursor=cursor,
        batch=1,
        group=group,
        size=size,
        ok=size - aborted,
        aborted=aborted,
        infra_failed=0,
        carried_over=0,
        whole=aborted == 0,
        finished_at=1.0,
    )


@dataclass
class RemoteBatch:
    """One batch of the played API."""

    spec: BatchSpec
    key: str
    groups: dict[str, Group] = field(default_factory=dict[str, Group])
    items: list[ResultItem | GroupItem] = field(default_factory=list[ResultItem | GroupItem])
    sealed: bool = False
    complete: bool = False
    acknowledged: int = 0
    gone_at: int | None = None
    """The cursor whose acknowledgement ends the batch, as if its last result had just come."""
    verdicts: dict[str, bool] = field(default_factory=dict[str, bool])

    def add(self, *items: ResultItem | GroupItem) -> None:
        """Appends items to the results stream."""
        for item in items:
            self.items.append(item.model_copy(update={"cursor": len(self.items) + 1}))

    def is_done(self) -> bool:
        """Whether the batch is sealed, all groups have ended and, with a target, all have a verdict."""
        ended = {item.group for item in self.items if isinstance(item, GroupItem)}
        judged = len(self.verdicts) == len(self.groups) or self.spec.target is None
        return self.sealed and ended == set(self.groups) and judged

    @property
    def state(self) -> BatchState:
        if self.gone_at is not None and self.acknowledged >= self.gone_at:
            return "acknowledged"
        return "complete" if self.complete else "sealed" if self.sealed else "open"

    def answer(self, number: int) -> Batch:
        target = self.spec.target
        valid = sum(self.verdicts.values())
        open_groups = len(self.groups) - len(self.verdicts)
        wanted = max(0, target.groups - valid - open_groups) if target else 0
        return Batch(
            id=number,
            state=self.state,
            weights_version="initial",
            purpose="train",
            priority="normal",
            wanted=wanted,
            last_cursor=len(self.items),
            metadata=self.spec.metadata,
            metrics=BatchMetrics(groups=len(self.groups)),
            target_met=target is not None and valid >= target.groups,
        )


class Remote:
    """Answers requests; each call plays the next of `faults` first, if there is one."""

    def __init__(self, token: str = "") -> None:
        self.batches: dict[int, RemoteBatch] = {}
        self.faults: deque[Fault] = deque()
        self.seen: list[httpx.Request] = []
        self.token = token
        self.most_groups = 10_000
        self.continued: list[tuple[str, int, int]] = []
        self.on_upload: Callable[[RemoteBatch, list[Group]], None] = lambda _batch, _new: None
        self.answers: dict[str, deque[Any]] = {}

    def client(self) -> Client:
        return Client(URL, token=self.token or None, limits=QUICK, transport=self.transport())

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    def paths(self) -> list[str]:
        """The requests so far, without the job's prefix."""
        return [f"{request.method} {request.url.path.removeprefix('/jobs/team/math')}" for request in self.seen]

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if self.faults:
            return self.faults.popleft()(request, self._answer)
        return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return problem(401, "Who are you?")
        assert request.url.path.startswith("/jobs/team/math/v1/")
        parts = request.url.path.removeprefix("/jobs/team/math/v1/").split("/")
        name = f"{request.method} {'/'.join(parts)}"
        if name in self.answers:
            queue = self.answers[name]
            return httpx.Response(200, json=queue.popleft() if len(queue) > 1 else queue[0])
        if parts == ["batches"] and request.method == "GET":
            return reply(BatchList(batches=[batch.answer(number) for number, batch in self.batches.items()]))
        if parts == ["batches"]:
            return self._open(request)
        if int(parts[1]) not in self.batches:
            return problem(404, f"There is no batch {parts[1]}.")
        if request.method == "DELETE":
            del self.batches[int(parts[1])]
            return httpx.Response(204)
        return self._batch(request, int(parts[1]), parts[2:])

    def _open(self, request: httpx.Request) -> httpx.Response:
        key = request.headers["Idempotency-Key"]
        for number, batch in self.batches.items():
            if batch.key == key:
                return reply(batch.answer(number))
        number = len(self.batches) + 1
        self.batches[number] = RemoteBatch(BatchSpec.model_validate_json(request.content), key)
        return reply(self.batches[number].answer(number), 201)

    def _batch(self, request: httpx.Request, number: int, rest: list[str]) -> httpx.Response:
        batch = self.batches[number]
        if rest == ["groups"]:
            return self._upload(request, batch)
        if rest == ["results"]:
            after, limit = int(request.url.params["cursor"]), int(request.url.params["limit"])
            gone = batch.state == "acknowledged"
            if gone and after < len(batch.items):
                return problem(409, "Its data are gone.")
            later = [item for item in batch.items if item.cursor > after][:limit]
            items = [item.model_copy(update={"batch": number}) for item in later]
            cursor = items[-1].cursor if items else after
            return reply(
                ResultPage(items=items, cursor=cursor, complete=(gone or batch.complete) and cursor == len(batch.items))
            )
        if rest == ["acknowledge"]:
            batch.acknowledged = json.loads(request.content)["cursor"]
        elif rest == ["seal"]:
            batch.sealed = True
        elif rest == ["verdicts"]:
            said = json.loads(request.content)
            batch.verdicts |= dict.fromkeys(said["valid"], True) | dict.fromkeys(said["invalid"], False)
        elif rest[-1:] == ["continue"]:
            return self._continue(request, batch, rest)
        batch.complete = batch.complete or batch.is_done()
        return reply(batch.answer(number))

    def _continue(self, request: httpx.Request, batch: RemoteBatch, rest: list[str]) -> httpx.Response:
        said = (rest[1], int(rest[3]), json.loads(request.content)["turn"])
        self.continued.append(said)
        if said[2] > 1:
            return problem(409, "No room is left.")
        before = [item for item in batch.items if isinstance(item, ResultItem) and item.group == said[0]]
        version, size = before[-1].weights_version, len({item.index for item in before})
        again = result(said[0], said[1], turn=said[2] + 1).model_copy(update={"weights_version": version})
        batch.add(again, end(said[0], size))
        done = {"batch": 1, "group": said[0], "index": said[1], "turn": said[2] + 1, "state": "queued"}
        return httpx.Response(200, json=done | {"token_ids": [], "sampled": [], "versions": [], "chunks": []})

    def _upload(self, request: httpx.Request, batch: RemoteBatch) -> httpx.Response:
        groups = [Group.model_validate_json(line) for line in request.content.splitlines()]
        if len(groups) > self.most_groups:
            return problem(413, f"At most {self.most_groups} groups in one call.")
        if batch.sealed:
            return problem(409, "The batch is sealed.")
        new = [group for group in groups if group.id not in batch.groups]
        batch.groups |= {group.id: group for group in new}
        self.on_upload(batch, new)
        return reply(UploadReceipt(accepted=len(new), present=len(groups) - len(new)))


def reply(model: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=model.model_dump_json(), headers={"Content-Type": "application/json"})


def problem(status: int, detail: str, **headers: str) -> httpx.Response:
    content = {"title": "No", "status": status, "detail": detail}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=content, headers={"Content-Type": "application/problem+json"} | more)


def no_fault(request: httpx.Request, answer: Handler) -> httpx.Response:
    """Passes the request on."""
    return answer(request)


def refused_connection(request: httpx.Request, _answer: Handler) -> httpx.Response:
    """Refuses the connection."""
    raise httpx.ConnectError("connection refused", request=request)


def lost_answer(request: httpx.Request, answer: Handler) -> httpx.Response:
    """Executes the call and loses its answer."""
    answer(request)
    raise httpx.ReadError("connection reset", request=request)


def answers(status: int, **headers: str) -> Fault:
    """Answers with an error of a gateway or of an overloaded API."""
    return lambda _request, _answer: problem(status, "later", **headers)


class _Torn(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content[: len(self._content) // 2]
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def torn_answer(request: httpx.Request, answer: Handler) -> httpx.Response:
    """Breaks the connection in the middle of the body."""
    return httpx.Response(200, stream=_Torn(answer(request).content))

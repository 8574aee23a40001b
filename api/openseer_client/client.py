"""The sync client: what a trainer calls. `async_client` offers the same with await."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import httpx

from openseer_client import reading
from openseer_client.checkpoint import Checkpoint
from openseer_client.groups import FinishedGroup
from openseer_client.http import calls, flows
from openseer_client.http.calls import Call
from openseer_client.http.exchange import Exchange
from openseer_client.http.flows import Emit, End, Flow, Pause, Stream, advance
from openseer_client.http.retry import Limits
from openseer_client.reading import Environment, Judge
from openseer_client.settings import Credentials, base_url, trusted
from openseer_core.errors import OpenseerError
from openseer_core.weights.publish import Publish
from openseer_core.wire.batches import (
    Batch,
    BatchSpec,
    Cancel,
    Group,
    GroupInfo,
    GroupItem,
    RequestInfo,
    ResultItem,
    UploadReceipt,
    Verdicts,
)
from openseer_core.wire.fleet import Acquire, Autoscaling, FleetState, JobStatus, Release, WorkerInfo
from openseer_core.wire.weights import Transaction, Weights

T = TypeVar("T")


class Client:
    """A connection to one job's API. Threads may share it. Every method raises ApiError for what the API refuses.

    What is not given comes from OPENSEER_URL, OPENSEER_TOKEN and OPENSEER_TOKEN_FILE. `limits`: how long a call is
    tried while the API is away or busy; `timeout`: seconds without a byte after which a connection counts as lost.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        limits: Limits | None = None,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        address, kept = base_url(url), httpx.Limits(max_keepalive_connections=100)
        self._exchange = Exchange(address, Credentials(token, token_file), limits or Limits(), timeout)
        self._http = httpx.Client(transport=transport, limits=kept, verify=trusted(address))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def open_batch(self, spec: BatchSpec | None = None, *, key: str | None = None) -> "BatchHandle":
        """Opens a batch. With a `key` used before it is that batch again: a restarted trainer finds its own so."""
        return BatchHandle(self, self.do(calls.open_batch(spec or BatchSpec(), key)).id)

    def batch(self, number: int) -> "BatchHandle":
        """A batch by its number; no call is made."""
        return BatchHandle(self, number)

    def batches(self) -> list[Batch]:
        """All batches whose data are there."""
        return self.do(calls.batches()).batches

    def publish(
        self, what: Publish, *, wait: bool = True, progress: Callable[[Transaction], None] | None = None
    ) -> Transaction:
        """Gives the fleet new weights; `wait`: until every worker has them. `progress` is called with each state.

        Raises WeightsError, which names who did not confirm.
        """
        if not wait:
            return self.do(calls.publish(what))
        return self.run(flows.publish(what, time.monotonic, progress))

    def weights(self, *, revision: int | None = None, wait_seconds: float = 0.0) -> Weights:
        """The fleet's weights; with `revision`, once they are newer or `wait_seconds` have passed."""
        return self.do(calls.weights(revision, wait_seconds))

    def abort_weights(self) -> Weights:
        """Ends a transaction that is on; the fleet goes back to the version before."""
        return self.do(calls.abort_weights())

    def remove_adapter(self, name: str) -> None:
        """Takes a LoRA adapter out of service: what is unfinished of it ends as aborted. One that is not served is a
        success. Raises ConflictError while it is being published."""
        self.do(calls.remove_adapter(name))

    def release(self, what: Release | None = None, *, patience: float = 600.0) -> FleetState:
        """Has the fleet give up its GPUs, and waits for it. Raises FleetError after `patience` seconds."""
        return self.run(flows.release(what or Release(), time.monotonic, patience))

    def acquire(self, what: Acquire | None = None, *, patience: float = 600.0) -> FleetState:
        """Gives the GPUs back to the fleet, and waits until it is awake, or the parts of it that are named.

        Raises FleetError after `patience` seconds.
        """
        return self.run(flows.acquire(what or Acquire(), time.monotonic, patience))

    def fleet(self) -> FleetState:
        """Whether the GPUs are openseer's."""
        return self.do(calls.fleet(0.0))

    def job(self) -> JobStatus:
        """The job at a glance."""
        return self.do(calls.job())

    def workers(self) -> list[WorkerInfo]:
        """The fleet, by name."""
        return self.do(calls.workers()).workers

    def autoscaling(self) -> Autoscaling:
        """Queue depth, backlog and wanted workers."""
        return self.do(calls.autoscaling())

    def do(self, call: Call[T]) -> T:
        """Makes one call, again and again within the limits."""
        exchange = self._exchange.run(call)
        step = advance(exchange)
        while not isinstance(step, End):
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                step = advance(exchange)
                continue
            try:
                response = self._http.send(step.request)
            except httpx.TransportError as error:
                step = advance(exchange, error=error)
            else:
                step = advance(exchange, response)
        return cast("End[T]", step).value

    def run(self, flow: Flow[T]) -> T:
        """Follows a flow to its outcome."""
        step = advance(flow)
        while not isinstance(step, End):
            step = self._step(flow, step)
        return cast("End[T]", step).value

    def iterate(self, stream: Stream[T]) -> Iterator[T]:
        """What a stream emits."""
        step = advance(stream)
        try:
            while not isinstance(step, End):
                if isinstance(step, Emit):
                    yield cast("Emit[T]", step).value
                    step = advance(stream)
                else:
                    step = self._step(stream, step)
        finally:
            stream.close()

    def _step(self, flow: Any, step: Call[Any] | Pause) -> Any:
        """Makes the call or the pause that the flow yielded and returns its next step."""
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return advance(flow)
        try:
            response = self.do(step)
        except OpenseerError as error:
            return advance(flow, error=error)
        return advance(flow, response)


class BatchHandle:
    """One batch."""

    def __init__(self, client: Client, number: int) -> None:
        self.client = client
        self.id = number
        self._own = reading.Own()

    def status(self) -> Batch:
        """The batch as it stands."""
        return self.client.do(calls.status(self.id))

    def submit(self, groups: Iterable[Group]) -> UploadReceipt:
        """Queues groups, in pieces; they are read from `groups` no faster than the API takes them."""
        return self.client.run(flows.submit(self.id, self._own.noted(groups)))

    def seal(self) -> Batch:
        """Says that the batch has all its groups."""
        self._own.sealed = True
        return self.client.do(calls.seal(self.id))

    def results(
        self, *, after: int | None = None, checkpoint: Checkpoint | None = None, acknowledge: bool = False
    ) -> Iterator[ResultItem | GroupItem]:
        """Results and group events as they come, until the batch is complete.

        It goes on over lost connections and restarts of the API. An item counts as taken when the next one is asked
        for: `checkpoint` notes it then, and goes on from there later; `acknowledge` tells the API, at most once a
        second and at the end, which deletes the data. `after`: a cursor to begin after, whatever the checkpoint says.
        """
        stream = reading.results(self.id, after, checkpoint, acknowledge=acknowledge, own=self._own)
        return self.client.iterate(stream)

    def groups(
        self,
        *,
        checkpoint: Checkpoint | None = None,
        acknowledge: bool = False,
        environment: Environment | None = None,
        seal_after: int | None = None,
    ) -> Iterator[FinishedGroup]:
        """Groups that have ended, each with all its results; check `whole`.

        `checkpoint` and `acknowledge` as with `results`, in whole groups. `environment`: given a finished turn, the
        token ids to append before it goes on, or None when that was the last. It runs between two reads: a slow one
        belongs in threads (read `results`, call `go_on`). A batch with turns to come must not be sealed before, so
        with an environment say in `seal_after` how many groups there are.
        """
        stream = reading.groups(
            self.id,
            checkpoint,
            acknowledge=acknowledge,
            environment=environment,
            seal_after=seal_after,
            own=self._own,
        )
        return self.client.iterate(stream)

    def fill(
        self,
        supply: Iterable[Group],
        judge: Judge,
        *,
        checkpoint: Checkpoint | None = None,
        acknowledge: bool = False,
        environment: Environment | None = None,
    ) -> Iterator[FinishedGroup]:
        """Submits groups from `supply` until the batch's target is met, and gives those that `judge` calls valid.

        For a batch opened with a target of `count: valid`. After a restart give it the same supply from its start.
        """
        stream = reading.fill(self.id, supply, judge, checkpoint, acknowledge=acknowledge, environment=environment)
        return self.client.iterate(stream)

    def go_on(self, item: ResultItem, token_ids: Sequence[int]) -> RequestInfo:
        """Continues a finished request after its environment's turn, with these tokens appended."""
        return self.client.do(reading.go_on(item, token_ids))

    def judge(self, verdicts: Mapping[str, bool]) -> Batch:
        """Says which groups are worth training on, by name."""
        valid = [name for name, good in verdicts.items() if good]
        invalid = [name for name, good in verdicts.items() if not good]
        return self.client.do(calls.verdicts(self.id, Verdicts(valid=valid, invalid=invalid)))

    def acknowledge(self, cursor: int) -> Batch:
        """Says that everything up to `cursor` is safe; of a complete batch's last cursor: its data go."""
        return self.client.do(calls.acknowledge(self.id, cursor))

    def cancel(self, groups: Sequence[str] | None = None, *, index: int | None = None) -> int:
        """Ends the batch, or some groups, or one request of one group; partial responses are reported."""
        names = list(groups) if groups is not None else None
        return self.client.do(calls.cancel(self.id, Cancel(groups=names, index=index))).count

    def forget(self) -> None:
        """Cancels what is unfinished and deletes the batch's data."""
        self.client.do(calls.forget(self.id))

    def metrics(self) -> dict[str, float]:
        """Name → number, for a trainer's logger."""
        return self.client.do(calls.metrics(self.id))

    def names(self, *, start: int = 0, limit: int = 1000) -> list[str]:
        """Names of groups in the order of submission, from `start` on."""
        return self.client.do(calls.group_names(self.id, start, limit)).groups

    def group(self, name: str) -> GroupInfo:
        """A group as it stands, with partial tokens."""
        return self.client.do(calls.group(self.id, name))

    def request(self, group: str, index: int) -> RequestInfo:
        """A request as it stands, with its tokens so far."""
        return self.client.do(calls.request(self.id, group, index))

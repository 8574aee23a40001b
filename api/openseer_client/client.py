"""The sync client of a trainer. `async_client` has the same methods with await."""

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
from openseer_core.wire.batches import Batch, BatchSpec, Cancel, Group, GroupInfo, RequestInfo, UploadReceipt, Verdicts
from openseer_core.wire.fleet import Acquire, Autoscaling, FleetState, JobStatus, Release, WorkerInfo
from openseer_core.wire.results import GroupItem, ResultItem
from openseer_core.wire.weights import Transaction, Weights

T = TypeVar("T")


class Client:
    """A connection to one job's API, which threads may share. Every method raises ApiError if the API refuses a call.

    `url`, `token`, `token_file` default to the environment variables OPENSEER_URL, OPENSEER_TOKEN, OPENSEER_TOKEN_FILE.
    `limits`: time limits of a call's retries while the API is unreachable or busy. `timeout`: seconds without a byte
    after which a connection counts as lost.
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
        """Opens a batch. With a `key` that was used before, returns the existing batch, for a restarted trainer."""
        return BatchHandle(self, self.do(calls.open_batch(spec or BatchSpec(), key)).id)

    def batch(self, number: int) -> "BatchHandle":
        """Returns a handle of the batch with this number, without a call."""
        return BatchHandle(self, number)

    def batches(self) -> list[Batch]:
        """Returns all batches whose data are not deleted."""
        return self.do(calls.batches()).batches

    def publish(
        self, what: Publish, *, wait: bool = True, progress: Callable[[Transaction], None] | None = None
    ) -> Transaction:
        """Publishes new weights; with `wait`, returns when every worker has loaded them. `progress` is called with each
        state.

        Raises WeightsError, which names the workers that have not confirmed.
        """
        if not wait:
            return self.do(calls.publish(what))
        return self.run(flows.publish(what, time.monotonic, progress))

    def weights(self, *, revision: int | None = None, wait_seconds: float = 0.0) -> Weights:
        """Returns the fleet's weights; with `revision`, waits up to `wait_seconds` for a newer revision."""
        return self.do(calls.weights(revision, wait_seconds))

    def abort_weights(self) -> Weights:
        """Cancels the active transaction; the fleet returns to its previous version."""
        return self.do(calls.abort_weights())

    def remove_adapter(self, name: str) -> None:
        """Removes a LoRA adapter from the fleet; its unfinished requests end as aborted. Does nothing if it is not
        served. Raises ConflictError while it is being published."""
        self.do(calls.remove_adapter(name))

    def release(self, what: Release | None = None, *, patience: float = 600.0) -> FleetState:
        """Lends the GPUs to the trainer, and returns when they are free. Raises FleetError after `patience` seconds."""
        return self.run(flows.release(what or Release(), time.monotonic, patience))

    def acquire(self, what: Acquire | None = None, *, patience: float = 600.0) -> FleetState:
        """Gives the GPUs back to the fleet, and returns when its engines, or the parts in `what`, are awake.

        Raises FleetError after `patience` seconds.
        """
        return self.run(flows.acquire(what or Acquire(), time.monotonic, patience))

    def fleet(self) -> FleetState:
        """Returns the state of the fleet: whether openseer or the trainer has the GPUs."""
        return self.do(calls.fleet(0.0))

    def job(self) -> JobStatus:
        """Returns the present state of the job."""
        return self.do(calls.job())

    def workers(self) -> list[WorkerInfo]:
        """Returns the workers of the fleet."""
        return self.do(calls.workers()).workers

    def autoscaling(self) -> Autoscaling:
        """Returns queue depth, backlog in tokens, and the wanted number of workers."""
        return self.do(calls.autoscaling())

    def do(self, call: Call[T]) -> T:
        """Makes one call, with retries within the limits, and returns its result."""
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
        """Runs a flow and returns its outcome."""
        step = advance(flow)
        while not isinstance(step, End):
            step = self._step(flow, step)
        return cast("End[T]", step).value

    def iterate(self, stream: Stream[T]) -> Iterator[T]:
        """Runs a stream and yields the values that it emits."""
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
        """Makes the call or the pause that the flow yielded, and returns the flow's next step."""
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return advance(flow)
        try:
            response = self.do(step)
        except OpenseerError as error:
            return advance(flow, error=error)
        return advance(flow, response)


class BatchHandle:
    """A batch of the job, for submitting groups and reading results."""

    def __init__(self, client: Client, number: int) -> None:
        self.client = client
        self.id = number
        self._own = reading.Own()

    def status(self) -> Batch:
        """Returns the present state of the batch."""
        return self.client.do(calls.status(self.id))

    def submit(self, groups: Iterable[Group]) -> UploadReceipt:
        """Submits groups, in pieces. Reads `groups` no faster than the API accepts them."""
        return self.client.run(flows.submit(self.id, self._own.noted(groups)))

    def seal(self) -> Batch:
        """Declares that all groups of the batch are submitted."""
        self._own.sealed = True
        return self.client.do(calls.seal(self.id))

    def results(
        self, *, after: int | None = None, checkpoint: Checkpoint | None = None, acknowledge: bool = False
    ) -> Iterator[ResultItem | GroupItem]:
        """Yields results and ends of groups as they arrive, until the batch is complete.

        It continues after lost connections and restarts of the API. An item counts as processed when the next one is
        requested; then the position is saved in `checkpoint`, from which a restart continues. `acknowledge`:
        acknowledges processed items, at most once per second and at the end, which deletes the batch's data. `after`: a
        cursor to begin after, instead of the checkpoint's.
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
        """Yields finished groups, each with its results. Train only on groups with `whole`.

        `checkpoint`, `acknowledge`: as in `results`, but a group is processed as a unit. `environment` maps a finished
        turn to the token ids to append before the response continues, or to None after the last turn. It runs between
        two reads; a slow environment should run in threads, with `results` and `go_on` instead of this method. A batch
        with further turns must not be sealed, so with an environment pass the number of groups as `seal_after`.
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
        """Submits groups from `supply` until the batch's target is met, and yields the whole groups that `judge`
        accepts.

        The batch must have been opened with a target of `count: valid`. After a restart pass the same supply from its
        start.
        """
        stream = reading.fill(self.id, supply, judge, checkpoint, acknowledge=acknowledge, environment=environment)
        return self.client.iterate(stream)

    def go_on(self, item: ResultItem, token_ids: Sequence[int]) -> RequestInfo:
        """Continues a finished request with `token_ids` appended, the environment's turn."""
        return self.client.do(reading.go_on(item, token_ids))

    def judge(self, verdicts: Mapping[str, bool]) -> Batch:
        """Marks groups as valid (True) or invalid (False) for training, by name."""
        valid = [name for name, good in verdicts.items() if good]
        invalid = [name for name, good in verdicts.items() if not good]
        return self.client.do(calls.verdicts(self.id, Verdicts(valid=valid, invalid=invalid)))

    def acknowledge(self, cursor: int) -> Batch:
        """Confirms that all results up to `cursor` are stored.
        If that is the last cursor of a complete batch, its data are deleted."""
        return self.client.do(calls.acknowledge(self.id, cursor))

    def cancel(self, groups: Sequence[str] | None = None, *, index: int | None = None) -> int:
        """Cancels the batch, some groups, or one request of one group, and returns the number of cancelled requests.
        Their partial responses are reported."""
        names = list(groups) if groups is not None else None
        return self.client.do(calls.cancel(self.id, Cancel(groups=names, index=index))).count

    def forget(self) -> None:
        """Cancels unfinished requests and deletes the batch's data."""
        self.client.do(calls.forget(self.id))

    def metrics(self) -> dict[str, float]:
        """Returns the batch's metrics, name → number, for a trainer's logger."""
        return self.client.do(calls.metrics(self.id))

    def names(self, *, start: int = 0, limit: int = 1000) -> list[str]:
        """Returns the names of at most `limit` groups in the order of submission, from number `start` on."""
        return self.client.do(calls.group_names(self.id, start, limit)).groups

    def group(self, name: str) -> GroupInfo:
        """Returns the present state of a group, with its tokens up to the last checkpoint."""
        return self.client.do(calls.group(self.id, name))

    def request(self, group: str, index: int) -> RequestInfo:
        """Returns the present state of a request, with its tokens up to the last checkpoint."""
        return self.client.do(calls.request(self.id, group, index))

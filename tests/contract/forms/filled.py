"""One instance of each type that is packed for Redis or stored there as JSON, with all fields filled."""

from dataclasses import fields
from typing import Any

from pydantic import BaseModel

from openseer_core.ids import GroupId, RequestId
from openseer_core.manifest.job import Sampling
from openseer_core.queue.group import GroupSpec, GroupView, Priority
from openseer_core.queue.messages import BatchProgress, Chunk, Delta, Finish, JournalEntry, Rescore
from openseer_core.queue.siblings import SiblingQuery
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_core.weights.fleet_spec import Adapter, FleetSpec, WeightsTransaction
from openseer_core.weights.publish import AdapterSpec, Canary, Deadlines, Publish, Source
from openseer_core.weights.reception import Reception
from openseer_core.wire.batches import BatchSpec, Target
from openseer_core.worker.heartbeat import Heartbeat, PassingReport, ReceptionReport, WeightsReport, WorkerState
from openseer_core.worker.metrics import WorkerMetrics

GROUP = GroupId(3, "group-é")
REQUEST = RequestId(GROUP, 2)

SPEC = GroupSpec(
    id=GROUP,
    version="v7",
    ordinal=5,
    prompt=pack_tokens([1, 2, 258, 70_000]),
    max_tokens=400,
    biases=(0.5, -3.0, 2.0),
    lanes=("", "worker-1", "worker-2"),
    priority=Priority(base=-400.5, slope=0.25, probe=-1e15),
    enqueued_at=1_795_000_000.125,
    lengths=(10, 20, 30),
    sampling='{"temperature":0.5}',
    metadata='{"metadata": {"from": "\\u00e9"}, "template_hash": "ab12"}',
    tier=-2,
    seeds=(11, None, 2**53 - 1),
    history="0123456789abcdef0123456789abcdef",
    history_size=4,
    longest_earlier=321,
    batch_ordinal=2,
)
PLAIN_SPEC = GroupSpec(GROUP, "v7", 1, pack_tokens([9]), 8, (0.0,) * 2, ("",) * 2, Priority(3.0), 1000.0)
"""A group with the default biases, lanes and probe."""

VIEW = GroupView(
    id=GROUP,
    revision=6,
    ordinal=5,
    size=3,
    max_tokens=400,
    enqueued_at=1_795_000_000.125,
    finished=1,
    longest_finished=90,
    longest_running=120,
    tier=-2,
    longest_earlier=321,
    batch_ordinal=2,
)
RESCORE = Rescore(VIEW, Priority(base=-120.0, slope=0.25, probe=-1e15))
DELTA = Delta(REQUEST, 2**32 + 3, 4, pack_tokens([5, 6]), pack_logprobs([-0.5, -1.25]))
FINISH = Finish(DELTA, Status.OK, FinishReason.STOP, "</s>", RESCORE)
PLAIN_FINISH = Finish(DELTA, Status.INFRA_FAILED, FinishReason.INFRA_FAILED)
ASK = SiblingQuery(GROUP, ((0, 12), (1, 30)), True)
CHUNK = Chunk("worker-1#boot", 2**32 + 3, 4, 9, 1000.25, 1002.5, "give_back", "v7")
JOURNAL = JournalEntry(1000.5, "claim", str(REQUEST), "worker-1#boot", 2**32 + 3, 4)
PROGRESS = BatchProgress(
    groups=1, requests=2, ok=3, aborted=4, infra_failed=5, tokens=6, sealed=True, carried_over=7, longest=8,
    groups_ended=9, groups_whole=10, groups_carried=11, groups_stale=12, valid=13, invalid=14, entries=15,
    ok_tokens=16, closed_tokens=17, open_known=18, open_expected=19, carried_tokens=20,
)  # fmt: skip

REPORT = WeightsReport(
    version="v6",
    transaction=4,
    attempt=1,
    phase="prefetch",
    error="the disk is gone",
    mismatch=True,
    difference=0.125,
    asleep=True,
    weights_awake=True,
    freed=False,
    rest_since=999.5,
    seconds={"prefetch": 1.5},
    digest="d" * 64,
    loaded="e" * 64,
    publisher=3,
    adapters={"a1": "f" * 64},
    adapter_error="the disk is gone",
    reception=ReceptionReport(
        id=7, joined=True, round=2, updates=3, finished=True, path="/received/7-2", digest="b" * 64, error="gone"
    ),
    passing=PassingReport(address="http://10.0.0.7:8080/weights/secret", whole=(3,), partial=(4,)),
)
INFO = Heartbeat(WorkerState.BUSY, WorkerMetrics({"slots": 8, "kv_used": 0.25, "device": "cpu"}), REPORT, 2.5, 7.75)
PLAIN_INFO = Heartbeat(WorkerState.STARTING)

CANARY = Canary(token_ids=[1, 2, 3], logprobs=[-0.5, -1.0], tolerance=0.01)
PUBLISH = Publish(
    version="v7",
    source=Source(url="https://weights.example/v7"),
    mode="keep",
    on_failure="replace",
    retries=3,
    prefetch=False,
    max_staleness=2,
    canary=CANARY,
    deadlines=Deadlines(prefetch=1.0, quiesce=2.0, load=3.0),
    adapter=AdapterSpec(name="math", base="v6"),
)
ONGOING = WeightsTransaction(
    id=4,
    publish=PUBLISH,
    previous="v6",
    previous_source=Source(path="/weights/v6"),
    phase="load",
    attempt=1,
    started_at=1000.5,
    entered_at=1001.5,
    finished_at=1002.5,
    participants=("worker-0", "worker-1"),
    waiting_for=("worker-1",),
    replaced=("worker-2",),
    message="worker-2 is replaced",
    seconds={"prefetch": 1.0},
    digest="d" * 64,
)
ORDERS = FleetSpec(
    revision=9,
    version="v6",
    source=Source(path="/weights/v6", digest="a" * 64),
    publisher=3,
    canary=CANARY,
    versions=("initial", "v5", "v6"),
    transaction=ONGOING,
    transactions=4,
    rest="sleep",
    awake=("weights",),
    keeps_weights=False,
    rest_since=999.5,
    held=True,
    held_since=4.0,
    adapters=(
        Adapter(
            name="math",
            version="a2",
            base="v6",
            source=Source(path="/adapters/a2", digest="f" * 64),
            publisher=2,
            canary=CANARY,
            versions=("a1", "a2"),
        ),
    ),
    adapter_versions=("a1", "a2"),
    reception=Reception(
        id=7,
        worker="worker-1",
        boot="boot",
        init={"world_size": 2},
        round=2,
        updates=3,
        update={"names": ["a"]},
        finished=True,
    ),
)
SAMPLING = Sampling(
    temperature=0.5,
    top_p=0.9,
    top_k=40,
    min_p=0.05,
    max_tokens=77,
    min_tokens=2,
    stop=("END", "é"),
    stop_token_ids=(2, 3),
    seed=2**53 - 1,
    logprobs="raw",
    top_logprobs=2,
    score_from=3,
    ignore_eos=True,
    force_lengths=True,
)
BATCH_SPEC = BatchSpec(
    weights_version="v6",
    adapter="math",
    purpose="eval",
    priority="high",
    sampling=Sampling(temperature=0.5, max_tokens=77),
    group_size=3,
    target=Target(groups=2, count="valid", rest="carry"),
    carry=True,
    max_staleness=1,
    metadata={"step": 1},
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)

FULL: tuple[Any, ...] = (
    SPEC, VIEW, RESCORE, DELTA, FINISH, ASK, CHUNK, JOURNAL, PROGRESS, INFO,
    REPORT, CANARY, PUBLISH, PUBLISH.deadlines, ONGOING, ORDERS, SAMPLING, BATCH_SPEC,
)  # fmt: skip


def unfilled(instance: Any) -> list[str]:
    """The fields of an instance that are empty or have their default. A new field must be filled here too."""
    if isinstance(instance, BaseModel):
        parts = type(instance).model_fields
        plain: dict[str, Any] = {name: part.get_default(call_default_factory=True) for name, part in parts.items()}
    else:
        plain = {field.name: field.default for field in fields(instance)}
    return [name for name, default in plain.items() if getattr(instance, name) in ("", default)]

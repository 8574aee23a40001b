"""Replies of Redis to the store's calls, with the values that the codec reads from them."""

from typing import Any

from openseer_core.queue.batch import BatchRecord, GroupEnd, QueueLoad
from openseer_core.queue.messages import Claim, ExtendReply, FleetLoad, Reply, RequestRecord, Result, WriteOutcome
from openseer_core.queue.siblings import Siblings, SiblingTokens
from openseer_core.queue.states import FinishReason, State, Status
from openseer_core.tokens import pack_logprobs, pack_tokens
from openseer_core.worker.heartbeat import WorkerStatus
from tests.contract.forms.filled import CHUNK, GROUP, INFO, PROGRESS, REQUEST, SPEC, VIEW

TOKENS, LOGPROBS = pack_tokens([7, 8]), pack_logprobs([-0.5, -0.25])
CHUNK_ROW = bytes.fromhex(
    "98ad776f726b65722d3123626f6f74cf00000001000000030409cb408f420000000000cb408f540000000000a9676976655f6261636ba27637"
)
JOURNAL_ROW = bytes.fromhex(
    "96cb408f440000000000a5636c61696dac332f67726f75702dc3a92f32ad776f726b65722d3123626f6f74cf000000010000000304"
)
GID, RID = "3/group-é".encode(), "3/group-é/2".encode()

VIEW_ROW: list[Any] = [GID, b"6", b"5", b"3", b"400", b"1795000000.125", b"1", b"90", b"120", b"-2", b"321", b"2"]

REPLY_ROW: list[Any] = [b"stale", 40, VIEW_ROW]
REPLY = Reply(WriteOutcome.STALE, 40, VIEW)

EXTEND_ROW: list[Any] = [
    [[b"ok", 9], [b"gap", 4], [b"lost", 0]],
    [VIEW_ROW],
    [5, b"-1000000000000000", 2, 7, 3, b"12.5"],
]
EXTEND = ExtendReply(
    (Reply(WriteOutcome.OK, 9), Reply(WriteOutcome.GAP, 4), Reply(WriteOutcome.LOST)),
    (VIEW,),
    FleetLoad(waiting=5, best_waiting=-1e15, mine=2, inflight=7, workers=3, free_pace=12.5),
)

SIBLINGS_ROW: list[Any] = [[GID, [0, 12, TOKENS, 1, 30, b""], [TOKENS]], [b"3/other", [], None]]
SIBLINGS = [
    Siblings(GROUP, (SiblingTokens(0, 12, TOKENS), SiblingTokens(1, 30, b"")), (TOKENS,)),
    Siblings(type(GROUP)(3, "other"), (), None),
]


def claims_row(spec: bytes) -> list[Any]:
    """Two leases on one group."""
    claimed = [b"4294967299", TOKENS, b"-400.5", b"0.25"]
    return [
        [
            [RID, *claimed, b"-1000000000000000", VIEW_ROW, b"v7", 3],
            ["3/group-é/1".encode(), *claimed, b"", VIEW_ROW, b"v7", 0],
        ],
        [GID, spec],
    ]


CLAIM = Claim(
    request=REQUEST,
    fence=2**32 + 3,
    prompt=SPEC.prompt,
    tokens=TOKENS,
    max_tokens=400,
    bias=2.0,
    true_length=30,
    sampling=SPEC.sampling,
    priority=SPEC.priority,
    view=VIEW,
    seed=2**53 - 1,
    version="v7",
    appended=3,
)


def entries_row(spec: bytes) -> list[Any]:
    """A result, then the end of its group."""
    said = [b"ok", b"stop", b"</s>", b"1002.5", TOKENS, LOGPROBS, [CHUNK_ROW], 1, b"v8"]
    return [[[b"17-0", RID, *said], [b"18-0", GID, b"1002.75", 10, 1, 2, 3, 4]], [GID, spec]]


ENTRIES = [
    Result(
        cursor=17,
        request=REQUEST,
        version="v8",
        status=Status.OK,
        reason=FinishReason.STOP,
        stop_reason="</s>",
        prompt=SPEC.prompt,
        tokens=TOKENS,
        logprobs=LOGPROBS,
        metadata=SPEC.metadata,
        sampling=SPEC.sampling,
        enqueued_at=SPEC.enqueued_at,
        finished_at=1002.5,
        chunks=(CHUNK,),
        turn=1,
    ),
    GroupEnd(18, GROUP, 1002.75, size=10, ok=1, aborted=2, infra_failed=3, carried_over=4),
]

RECORD_ROW: list[Any] = [b"leased", b"4294967299", TOKENS, LOGPROBS, [CHUNK_ROW], 1, b"worker-1#boot", b"stop"]
RECORD = RequestRecord(
    request=REQUEST,
    state=State.LEASED,
    fence=2**32 + 3,
    tokens=TOKENS,
    logprobs=LOGPROBS,
    chunks=(CHUNK,),
    turn=1,
    holder="worker-1#boot",
    reason="stop",
)

BATCH_HASH = (
    b"groups 1 requests 2 ok 3 aborted 4 infra_failed 5 tokens 6 sealed 1 carried_over 7 longest 8 groups_ended 9 "
    b"groups_whole 10 groups_carried 11 groups_stale 12 valid 13 invalid 14 entries 15 "
    b"ok_tokens 16 closed_tokens 17 open_known 18 open_expected 19 carried_tokens 20 "
    b"version v7 spec {} key a journal 99 opened_at 1000.5 started_at 1001.5 tail_at 1002.5 ended_at 1003.5 "
    b"acknowledged 14 forgotten 1 ordinal 16 swept 17 takes_parked 1"
).split()
BATCH = BatchRecord(
    number=12,
    version="v7",
    spec="{}",
    progress=PROGRESS,
    opened_at=1000.5,
    started_at=1001.5,
    tail_at=1002.5,
    ended_at=1003.5,
    acknowledged=14,
    forgotten=True,
    ordinal=16,
    swept=17,
    takes_parked=True,
)

LOAD_ROW: list[Any] = [7, b"2.5", b"7.75", b"2:v7:", 3, b"2:v7:worker-1", 2, b"4:v8:x:", 1, b"2:v9:", 0]
LOAD = QueueLoad({"v7": 5, "v8:x": 1}, 7, 2.5, 7.75)


def worker_row(info: bytes) -> list[Any]:
    """The last heartbeat of a worker."""
    return [b"worker-1", b"boot", b"1002.5", info, 4]


WORKER = WorkerStatus("worker-1", "boot", 1002.5, 4, INFO)

FULL: tuple[Any, ...] = (REPLY, EXTEND.fleet_load, SIBLINGS[0], CLAIM, *ENTRIES, RECORD, BATCH, LOAD, WORKER)

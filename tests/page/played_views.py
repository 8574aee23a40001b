"""The views of a played fleet, as the server's own models."""

import statistics
from itertools import pairwise

from openseer_core.explain.findings import SLOW_ADVICE
from openseer_core.explain.parts import PART_LABELS
from openseer_core.wire.batches import Batch, BatchMetrics, Target
from openseer_core.wire.page import (
    MOST_BARS,
    MOST_IN_TAIL,
    MOST_PAIRS,
    MOST_POINTS,
    MOST_TOKENS,
    Bars,
    BatchView,
    Explained,
    GroupColumns,
    GroupPage,
    Histogram,
    JobCard,
    JobView,
    PartOfTime,
    Possible,
    RequestWord,
    ResponseView,
    Series,
    StandsOut,
    TailRequest,
    WorkerLane,
)
from openseer_core.wire.results import ChunkInfo
from openseer_core.wire.weights import Transaction
from tests.page.played_fleet import Fleet, Request, Worker, tokens_of

ENDED = ("ok", "failed")
SILENT_SECONDS = 3.0


def card(fleet: Fleet, name: str, live: bool = True) -> JobCard:
    requests = fleet.requests
    ended = sum(request.state in ENDED for request in requests)
    share = ended / len(requests) if requests else None
    rate = fleet.series[-1][3] if fleet.series else None
    left = sum(request.length - request.done for request in requests)
    silent = [worker.name for worker in fleet.workers if _silent(fleet, worker) > SILENT_SECONDS]
    reason = f"{', '.join(silent)} is silent; its responses go on elsewhere" if silent else "generates at full slots"
    return JobCard(
        namespace="team-a",
        name=name,
        mode="serve" if live else "batch",
        state="running" if live else "finished",
        reason=reason if live else "all responses are there",
        workers=len(fleet.workers),
        workers_ready=len(fleet.workers) - len(silent),
        workers_wanted=len(fleet.workers),
        running=sum(len(worker.running) for worker in fleet.workers),
        waiting=len(fleet.queue),
        batches=3,
        progress=share,
        eta_seconds=left / rate if rate else None,
        tokens=int(fleet.tokens),
        tokens_per_second=rate,
        acceptance_length=fleet.series[-1][5] if fleet.series else None,
        idle_gpu_seconds=41.0,
        busy_gpu_seconds=(fleet.now - fleet.opened_at) * len(fleet.workers),
    )


def job_view(fleet: Fleet, name: str, live: bool = True) -> JobView:
    leases = sorted(fleet.leases, key=lambda lease: lease.start)[-MOST_BARS:]
    points = fleet.series[-MOST_POINTS:]
    return JobView(
        now=fleet.now,
        live=live,
        card=card(fleet, name, live),
        model="Qwen/Qwen3-8B",
        engine="vllm",
        policy="context",
        weights_version=fleet.version,
        transaction=_transaction(fleet),
        lanes=[_lane(fleet, worker) for worker in fleet.workers],
        bars=Bars(
            lane=[lease.lane for lease in leases],
            row=[lease.row for lease in leases],
            start=[lease.start for lease in leases],
            end=[lease.end for lease in leases],
            tokens=[lease.tokens if lease.end is None else lease.end_tokens for lease in leases],
            event=[lease.event for lease in leases],
            request=[f"3/{lease.request.group}/{lease.request.index}" for lease in leases],
            left_out=len(fleet.leases) - len(leases),
        ),
        series=Series(
            at=[point[0] for point in points],
            running=[point[1] for point in points],
            waiting=[point[2] for point in points],
            tokens_per_second=[point[3] for point in points],
            kv_used=[point[4] for point in points],
            acceptance_length=[point[5] for point in points],
        ),
        batches=[_earlier(1), _earlier(2), _batch(fleet)],
    )


def explained(fleet: Fleet, live: bool = True) -> Explained:
    """A played explanation, with a finding for a slow worker if there is one."""
    seconds = max(1.0, fleet.now - fleet.opened_at)
    whole = seconds * len(fleet.workers)
    shares = {"boot": 0.04, "store": 0.02, "prefill": 0.081, "decode_full": 0.7, "decode_below": 0.1, "tail": 0.059}
    found = [(worker.name, words) for worker in fleet.workers if (words := _slow(fleet, worker))]
    return Explained(
        live=live,
        seconds=seconds,
        makespan_seconds=seconds,
        workers=len(fleet.workers),
        worker_seconds=whole,
        parts=[
            PartOfTime(
                name=name, label=label, worker_seconds=shares.get(name, 0.0) * whole, share=shares.get(name, 0.0)
            )
            for name, label in PART_LABELS.items()
        ],
        findings=[
            StandsOut(
                cause="slow_worker",
                subject=name,
                figure=0.2,
                says=f"{name} {words}",
                advice=SLOW_ADVICE,
                worker_seconds=0.1 * whole,
                share=0.1,
            )
            for name, words in found
        ],
        tail=""
        if fleet.queue
        else "3 responses run and no request waits; response 2 of group q7 is expected to end last",
        best=None
        if live
        else Possible(
            known=0.9 * seconds,
            policy="context-aware",
            oracle=0.85 * seconds,
            bound=0.8 * seconds,
            itself=0.95 * seconds,
            unknown=["start-up, the store's and the network's time"],
        ),
        no_best="it is simulated after the end of the run, when all lengths are known" if live else "",
        notes=["worker-0 ran before this page was first opened: earlier waits count as idle or decoding"],
    )


def _slow(fleet: Fleet, worker: Worker) -> str:
    fastest = max(each.speed for each in fleet.workers)
    if not worker.running or worker.speed > 0.75 * fastest:
        return ""
    return (
        f"generates responses at {worker.speed / fastest:.2f} of the other workers' pace with equally many: "
        f"{worker.speed:.1f} tokens/s each instead of {fastest:.1f}"
    )


def batch_view(fleet: Fleet, live: bool = True) -> BatchView:
    groups = GroupColumns()
    for name, members in sorted(fleet.groups.items(), key=lambda item: all(r.state in ENDED for r in item[1])):
        states = [request.state for request in members]
        groups.name.append(name)
        groups.size.append(len(members))
        groups.waiting.append(states.count("waiting"))
        groups.running.append(states.count("running"))
        groups.ok.append(states.count("ok"))
        groups.failed.append(states.count("failed"))
        groups.longest.append(max((int(r.done) for r in members if r.state in ENDED), default=0))
        groups.estimate.append(_estimate(members))
    finished = [request for request in fleet.requests if request.state == "ok"]
    pairs = finished[-MOST_PAIRS:]
    edges = [0, 100, 200, 300, 400, 500, 600, 800, 1000, 1300, 1700, 2200, 3000, 5000]
    running = sorted((_tail(fleet, r) for r in fleet.requests if r.state == "running"), key=lambda t: -(t.ends_in or 0))
    return BatchView(
        now=fleet.now,
        live=live,
        batch=_batch(fleet),
        groups=groups,
        histogram=Histogram(
            edges=edges,
            counts=[sum(low <= r.length < high for r in finished) for low, high in pairwise(edges)],
        )
        if finished
        else Histogram(),
        estimates=[_guess(fleet, request) for request in pairs],
        lengths=[request.length for request in pairs],
        tail=running[:MOST_IN_TAIL],
        tail_left_out=max(0, len(running) - MOST_IN_TAIL),
        in_tail_since=fleet.now - 12 if len(fleet.queue) == 0 and running else None,
    )


def group_page(
    fleet: Fleet, name: str, index: int | None, sent: dict[int, int], live: bool = True, most: int = MOST_TOKENS
) -> GroupPage:
    """The next pieces, of `most` tokens. `sent`: number of tokens already sent per response; updated."""
    members = fleet.groups[name]
    shown = members if index is None else [members[index]]
    return GroupPage(
        now=fleet.now,
        live=live,
        batch=3,
        name=name,
        prompt="What is the sum of the first 40 odd numbers? Think step by step, and give the result in a box.",
        prompt_tokens=27,
        max_tokens=4096,
        estimate=_estimate(members),
        responses=[_response(request, sent, most) for request in shown],
    )


def _response(request: Request, sent: dict[int, int], most: int) -> ResponseView:
    start, length = sent.get(request.index, 0), int(request.done)
    end = min(length, start + most)
    ids, text, scores = tokens_of(request, start, end)
    sent[request.index] = end
    words: dict[str, RequestWord] = {"waiting": "waiting", "running": "running", "ok": "ok", "failed": "failed"}
    reasons = {"ok": "stop", "failed": "worker-1 and worker-2 died while it ran", "waiting": "", "running": ""}
    return ResponseView(
        index=request.index,
        state=words[request.state],
        reason=reasons[request.state],
        worker=f"worker-{request.lease.lane}" if request.lease else "",
        length=length,
        start=start,
        tokens=ids,
        text=text,
        logprobs=scores or None,
        chunks=[
            ChunkInfo(
                worker=f"worker-{chunk.lane}#e3edc65b",
                start=chunk.tokens,
                end=chunk.end_tokens,
                claimed_at=chunk.start,
                ended_at=chunk.end or 0.0,
                event=chunk.event,
                version=chunk.version,
            )
            for chunk in request.chunks
        ],
    )


def _lane(fleet: Fleet, worker: Worker) -> WorkerLane:
    silent = _silent(fleet, worker)
    runs = len(worker.running)
    waits = "nothing waits in the queue" if runs < worker.slots and not fleet.queue else ""
    return WorkerLane(
        worker=worker.name,
        state="busy" if runs else "idle",
        version=fleet.version,
        device="NVIDIA H200",
        node=f"node-{int(worker.name[7:]) // 4}",
        silent=silent > SILENT_SECONDS,
        seen_seconds_ago=silent,
        running=runs,
        slots=worker.slots,
        kv_used=min(1.0, 0.9 * runs / worker.slots),
        tokens=int(worker.tokens),
        tokens_per_second=0.0 if silent > SILENT_SECONDS else worker.speed * runs,
        acceptance_length=2.2,
        error=worker.error,
        pace_ratio=worker.speed / max(each.speed for each in fleet.workers),
        slow=_slow(fleet, worker),
        waits=waits,
    )


def _silent(fleet: Fleet, worker: Worker) -> float:
    return 0.4 if worker.silent_since is None else fleet.now - worker.silent_since


def _transaction(fleet: Fleet) -> Transaction:
    return Transaction(
        id=4,
        version="step-4",
        previous="step-3",
        mode="drain",
        phase="quiesce",
        attempt=1,
        started_at=fleet.now - 21,
        deadline=fleet.now + 99,
        waiting_for=[worker.name for worker in fleet.workers[:2]],
        seconds={"prefetch": 12.4},
    )


def _batch(fleet: Fleet) -> Batch:
    requests = fleet.requests
    ok = [request for request in requests if request.state == "ok"]
    failed = sum(request.state == "failed" for request in requests)
    ended = sum(all(r.state in ENDED for r in members) for members in fleet.groups.values())
    share = (len(ok) + failed) / max(1, len(requests))
    seconds = fleet.now - fleet.opened_at
    return Batch(
        id=3,
        job="team-a/math",
        opened_at=fleet.opened_at,
        state="complete" if share == 1 else "sealed",
        weights_version=fleet.version,
        purpose="train",
        priority="normal",
        target=Target(groups=32),
        progress=share,
        eta_seconds=70.0,
        tail=share > 0.9,
        metrics=BatchMetrics(
            groups=len(fleet.groups),
            groups_finished=ended,
            requests=len(requests),
            requests_ok=len(ok),
            requests_infra_failed=failed,
            tokens=int(fleet.tokens),
            seconds=seconds,
            tokens_per_second=fleet.tokens / max(1.0, seconds),
            length_mean=statistics.fmean(r.length for r in ok) if ok else 0.0,
            length_max=max((r.length for r in ok), default=0),
            drafted_tokens=1000,
            draft_share=0.52,
            acceptance_length=2.2,
        ),
    )


def _earlier(number: int) -> Batch:
    return Batch(
        id=number,
        job="team-a/math",
        state="acknowledged",
        weights_version=f"step-{number}",
        purpose="train",
        priority="normal",
        progress=1.0,
        metrics=BatchMetrics(
            groups=40,
            groups_finished=40,
            requests=320,
            requests_ok=319,
            requests_aborted=1,
            tokens=201_000 + 1000 * number,
            seconds=130.0,
            tokens_per_second=1546.0,
            tail_seconds=9.5,
            length_mean=628.0,
            length_max=3011,
        ),
    )


def _estimate(members: list[Request]) -> int | None:
    lengths = [request.length for request in members if request.state in ENDED]
    return int(statistics.fmean(lengths)) if lengths else None


def _guess(fleet: Fleet, request: Request) -> int:
    """The estimate from the group's probe; for the probe itself, its own length with an error."""
    probe = fleet.groups[request.group][0]
    return probe.length if request.index else int(probe.length * 1.2)


def _tail(fleet: Fleet, request: Request) -> TailRequest:
    assert request.lease is not None
    expected = _estimate(fleet.groups[request.group])
    speed = fleet.workers[request.lease.lane].speed
    return TailRequest(
        request=f"3/{request.group}/{request.index}",
        worker=f"worker-{request.lease.lane}",
        since=request.lease.start,
        tokens=int(request.done),
        expected=expected,
        ends_in=max(0.0, expected - request.done) / speed if expected else None,
        chunks=len(request.chunks) + 1,
    )

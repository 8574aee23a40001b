"""Synthetic runs: the real queue and policy under scripted workers on a virtual clock, written as a run folder."""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from openseer_core.ids import GroupId, WorkerId
from openseer_core.model.job_queue import JobQueue
from openseer_core.queue.group import SHARED_LANE, GroupSpec, GroupView
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import Chunk, Claim, ClaimQuery, Delta, Finish, Rescore, Result
from openseer_core.queue.policy import policy
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import pack_logprobs, pack_tokens, unpack_logprobs, unpack_tokens
from openseer_core.worker.draft_metrics import CORPUS_SIZES
from openseer_driver.run_folder import ResultsWriter, RunFolder
from openseer_driver.run_lines import (
    ChunkLine,
    ResultLine,
    RunRecord,
    SampleLine,
    Session,
    Timings,
    WorkerSample,
)

START = 1_795_000_000.0
TICK = 0.25
VERSION = "initial"
BLOCK = 16


@dataclass(frozen=True)
class Shape:
    """Parameters of a simulation. `killed`: seconds after which the first worker dies and boots again, if any.
    `drafts`: workers also count invented drafts, which change no speed.
    """

    groups: int = 40
    size: int = 8
    workers: int = 2
    slots: int = 16
    rate: float = 40.0
    mean: float = 220.0
    max_tokens: int = 2048
    quantum: int = 128
    policy: str = "context-aware"
    killed: float | None = None
    logprobs: bool = True
    drafts: bool = False
    seed: int = 1

    @property
    def blocks(self) -> int:
        """KV blocks of a worker: enough for three quarters of its slots at the limit."""
        return int(0.3 * self.slots * (self.max_tokens + 32)) // BLOCK


SMALL = Shape()
LARGE = Shape(groups=500, size=8, workers=16, slots=24, mean=300.0, killed=30.0, logprobs=False)


@dataclass
class Running:
    """A claim that a worker runs, with its tokens so far."""

    claim: Claim
    length: int
    start: int
    carry: float = 0.0


@dataclass
class Worker:
    """One simulated worker."""

    id: WorkerId
    running: list[Running] = field(default_factory=list[Running])
    tokens: int = 0
    preemptions: int = 0
    dead_until: float = 0.0
    drafts: Counter[str] = field(default_factory=Counter[str])


class Simulation:
    """Runs a shape to its end; afterwards `queue` holds the journal and the results, `samples` the fleet over time."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.random = random.Random(shape.seed)
        self.policy = policy(shape.policy)
        self.queue = JobQueue()
        self.now = START
        self.workers = [Worker(WorkerId(f"worker-{n}", f"b{n}")) for n in range(shape.workers)]
        self.samples: list[SampleLine] = []
        for ordinal in range(shape.groups):
            self._submit(ordinal)
        self.queue.seal(0)

    def run(self) -> "Simulation":
        """Simulates until every request is closed."""
        ticks = 0
        while not self.queue.progress(0).complete:
            for worker in self.workers:
                self.step(worker)
            if ticks % round(1 / TICK) == 0:
                self.samples.append(self._sample())
            self.now += TICK
            ticks += 1
        self.samples.append(self._sample())
        return self

    def results(self) -> list[Result]:
        """All results in the order of their end."""
        return [entry for entry in self.queue.results(0, 0, 1_000_000) if isinstance(entry, Result)]

    def _submit(self, ordinal: int) -> None:
        shape, draw, name = self.shape, self.random, f"prompt-{ordinal:03}"
        scale = min(draw.lognormvariate(0, 0.75), 8.0) * shape.mean
        lengths = [max(4, min(shape.max_tokens, int(scale * draw.lognormvariate(0, 0.3)))) for _ in range(shape.size)]
        spec = GroupSpec(
            GroupId(0, name),
            VERSION,
            ordinal,
            pack_tokens(draw.randrange(32_000) for _ in range(24)),
            shape.max_tokens,
            (0.0,) * shape.size,
            (SHARED_LANE,) * shape.size,
            self.policy.priority(GroupView(GroupId(0, name), 0, ordinal, shape.size, shape.max_tokens, START)),
            START,
            tuple(lengths),
        )
        self.queue.submit(spec)

    def step(self, worker: Worker) -> None:
        """One tick of a worker: it claims, generates, finishes and gives back."""
        if self._dies(worker) or self.now < worker.dead_until:
            return
        room = self.shape.slots - len(worker.running)
        used = sum(self._blocks(running) for running in worker.running)
        if room > 0:
            free = self.shape.blocks - used
            query = ClaimQuery(
                version=VERSION,
                lanes=(SHARED_LANE,),
                slots=room,
                blocks=free,
                layout=whole(BLOCK),
                quantum=self.shape.quantum,
                context_tokens=8192,
            )
            claims = self.queue.claim(worker.id, query, self.now)
            worker.running += [Running(claim, claim.generated, claim.generated) for claim in claims]
        self._generate(worker)

    def _dies(self, worker: Worker) -> bool:
        killed = self.shape.killed
        if killed is None or worker is not self.workers[0] or worker.dead_until or self.now < START + killed:
            return False
        worker.dead_until = self.now + 14.0
        worker.running.clear()
        worker.id, worker.tokens = WorkerId(worker.id.name, "again"), 0
        worker.drafts.clear()
        return True

    def _generate(self, worker: Worker) -> None:
        speed = self.shape.rate / (1 + len(worker.running) / 60) * self.random.uniform(0.9, 1.1)
        deltas: list[Delta] = []
        for running in list(worker.running):
            running.carry += speed * TICK
            new = min(int(running.carry), running.claim.true_length - running.length)
            running.carry -= int(running.carry)
            delta = self._delta(running, new)
            running.length += new
            worker.tokens += new
            if self.shape.drafts:
                self._draft(worker, running, new)
            if running.length >= running.claim.true_length:
                self._finish(worker, running, delta)
            elif self._must_go(worker, running):
                self.queue.give_back([delta], self.now)
                worker.running.remove(running)
            else:
                deltas.append(delta)
        self.queue.extend(worker.id, deltas, [], self.now, lease_seconds=10.0, version=VERSION, lanes=(SHARED_LANE,))

    def _draft(self, worker: Worker, running: Running, new: int) -> None:
        """Counts invented drafts: more with each finished sibling."""
        siblings = self.queue.view(running.claim.request.group).finished
        rows = max(1, round(new / (1.6 + 0.2 * min(siblings, 5))))
        source = self.random.choice(("own", "siblings", "siblings", "prompt") if siblings else ("own", "prompt"))
        drafted, accepted = rows * (5 - len(worker.running) // 5), max(0, new - rows)
        bucket = max(count for count in CORPUS_SIZES if count <= siblings)
        worker.drafts.update(
            {
                "steps": 1,
                "draft_steps": rows,
                "drafted_tokens": drafted + accepted,
                "accepted_tokens": accepted,
                f"drafted_{source}": drafted + accepted,
                f"accepted_{source}": accepted,
                f"steps_refs_{bucket}": rows,
                f"tokens_refs_{bucket}": rows + accepted,
                "draft_microseconds": self.random.randrange(20, 60),
            }
        )

    def _must_go(self, worker: Worker, running: Running) -> bool:
        over = running.length - running.start >= self.shape.quantum
        fleet_load = self.queue.fleet_load(worker.id, (VERSION,), (SHARED_LANE,))
        return over and fleet_load.waiting > 0 and self.random.random() < 0.08

    def _delta(self, running: Running, new: int) -> Delta:
        tokens = pack_tokens(self.random.randrange(32_000) for _ in range(new))
        logprobs = pack_logprobs(-self.random.expovariate(1.0) for _ in range(new)) if self.shape.logprobs else b""
        return Delta(running.claim.request, running.claim.fence, running.length, tokens, logprobs)

    def _finish(self, worker: Worker, running: Running, delta: Delta) -> None:
        group = running.claim.request.group
        view = self.queue.view(group)
        after = view.with_finish(running.length)
        reason = FinishReason.LENGTH if running.length == self.shape.max_tokens else FinishReason.STOP
        finish = Finish(delta, Status.OK, reason, rescore=Rescore(after, self.policy.priority(after)))
        self.queue.complete([finish], self.now + self.random.uniform(0, TICK / 2))
        worker.running.remove(running)

    def _blocks(self, running: Running) -> int:
        return -(-(24 + running.length + self.shape.quantum) // BLOCK)

    def _sample(self) -> SampleLine:
        workers: dict[str, WorkerSample] = {}
        for worker in self.workers:
            if self.now < worker.dead_until:
                continue
            held = sum(self._blocks(running) for running in worker.running) / self.shape.blocks
            used = sum(24 + running.length for running in worker.running) / BLOCK / self.shape.blocks
            worker.preemptions += held > 0.999 and self.random.random() < 0.1
            state = "busy" if worker.running else "idle"
            count = len(worker.running)
            drafts = {name: float(value) for name, value in worker.drafts.items()}
            if drafts:
                drafts["draft_seconds"] = drafts.pop("draft_microseconds") / 1e6
            workers[worker.id.name] = WorkerSample(
                state,
                count,
                self.shape.slots,
                used,
                held,
                worker.preemptions,
                worker.tokens,
                count,
                drafting="on" if drafts else "",
                drafts=drafts,
            )
        fleet_load, progress = (
            self.queue.fleet_load(self.workers[0].id, (VERSION,), (SHARED_LANE,)),
            self.queue.progress(0),
        )
        return SampleLine(
            self.now,
            fleet_load.waiting,
            fleet_load.inflight,
            progress.closed,
            progress.requests,
            progress.tokens,
            workers,
        )


def result_line(result: Result) -> ResultLine:
    """A result as a line of the run folder."""
    request, chunks = result.request, [ChunkLine(*_fields(chunk)) for chunk in result.chunks]
    logprobs: list[float | None] = [*unpack_logprobs(result.logprobs)]
    started = chunks[0].claimed_at if chunks else None
    return ResultLine(
        batch=request.group.batch,
        group=request.group.name,
        index=request.index,
        weights_version=result.version,
        status=result.status,
        finish_reason=result.reason.value,
        stop_reason=result.stop_reason or None,
        prompt_token_ids=unpack_tokens(result.prompt),
        prompt_template_hash=None,
        token_ids=unpack_tokens(result.tokens),
        logprobs=logprobs or None,
        logprobs_of="sampled" if logprobs else None,
        text="",
        metadata={},
        chunks=chunks,
        workers=list(dict.fromkeys(chunk.worker_name for chunk in chunks)),
        timings=Timings(result.enqueued_at, started, result.finished_at, result.finished_at - result.enqueued_at),
        cursor=result.cursor,
    )


def run_record(name: str, shape: Shape, end: float) -> RunRecord:
    """run.json of a complete run."""
    spec = {"rollout": {"policy": shape.policy}, "sampling": {"maxTokens": shape.max_tokens}}
    session = Session(START - 30, end, shape.workers)
    return RunRecord(name, "sha256:0", {"metadata": {"name": name}, "spec": spec}, "0.1.0", "complete", "", [session])


def write_run(path: Path, shape: Shape = SMALL) -> Simulation:
    """Simulates a run, writes its folder and returns the simulation with queue and journal."""
    simulation = Simulation(shape).run()
    folder = RunFolder(path)
    folder.create()
    folder.write_run(run_record(path.name, shape, simulation.now + 2))
    with ResultsWriter(folder) as writer:
        writer.write([result_line(result) for result in simulation.results()])
        writer.flush()
    folder.samples_file.write_bytes(b"".join(msgspec.json.encode(s) + b"\n" for s in simulation.samples))
    return simulation


def _fields(chunk: Chunk) -> tuple[str, int, int, int, float, float, str]:
    return chunk.worker, chunk.fence, chunk.start, chunk.end, chunk.claimed_at, chunk.ended_at, chunk.event

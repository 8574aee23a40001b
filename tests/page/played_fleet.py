"""A small fleet on its own clock, played for the page: requests are claimed, moved, lost and finished."""

import random
from dataclasses import dataclass, field

SENTENCE = "Let us compute this step by step, and check each result before we go on"
SHARED = SENTENCE.split()
CHATTER = "the of and so we have that is thus step sum equals 3 12 let x y again"
WORDS = [*(f" {word}" for word in CHATTER.split()), "\n"]
KEPT_SECONDS = 130.0
GROUP_SIZE = 8


@dataclass
class Lease:
    lane: int
    row: int
    start: float
    request: "Request"
    tokens: int
    version: str
    end: float | None = None
    end_tokens: int = 0
    event: str = ""


@dataclass
class Request:
    group: str
    index: int
    length: int
    state: str = "waiting"
    done: float = 0.0
    lease: Lease | None = None
    chunks: list[Lease] = field(default_factory=list[Lease])
    ended_at: float = 0.0


@dataclass
class Worker:
    name: str
    speed: float
    slots: int
    silent_since: float | None = None
    error: str = ""
    running: list[Request] = field(default_factory=list[Request])
    tokens: float = 0.0


class Fleet:
    """`step` advances the fleet. Lengths and moves are drawn from a seed, so that equal steps give equal fleets."""

    def __init__(
        self, workers: int = 4, slots: int = 8, groups: int = 40, size: int = 8, length: float = 600.0
    ) -> None:
        self.chance = random.Random(7)
        self.now = 1000.0
        self.opened_at = self.now
        self.quantum = length / 2
        self.workers = [Worker(f"worker-{n}", 55.0 + 4 * (n % 3), slots) for n in range(workers)]
        self.groups: dict[str, list[Request]] = {}
        for n in range(groups):
            mean = length * self.chance.lognormvariate(0.0, 0.6)
            lengths = [max(12, int(mean * self.chance.lognormvariate(0.0, 0.3))) for _ in range(GROUP_SIZE)]
            self.groups[f"q{n}"] = [Request(f"q{n}", index, tokens) for index, tokens in enumerate(lengths)]
        # Probes first, as in the product: the first request of each group shows its length.
        self.queue = sorted((r for group in self.groups.values() for r in group), key=lambda r: r.index > 0)
        self.leases: list[Lease] = []
        self.series: list[tuple[float, int, int, float, float, float | None]] = []
        self.version = "step-3"
        self.tokens = 0.0

    @property
    def requests(self) -> list[Request]:
        return [request for group in self.groups.values() for request in group]

    def step(self, seconds: float = 1.0) -> None:
        """Advances by one second or `seconds`: tokens, ends, claims, and a point of the series."""
        self.now += seconds
        before = self.tokens
        for lane, worker in enumerate(self.workers):
            if worker.silent_since is not None:
                self._lose(worker)
                continue
            for request in list(worker.running):
                self._gain(worker, request, seconds)
            while len(worker.running) < worker.slots and self.queue:
                self._claim(lane, worker, self.queue.pop(0))
        self.leases = [one for one in self.leases if one.end is None or one.end > self.now - KEPT_SECONDS]
        running = sum(len(worker.running) for worker in self.workers)
        rate = (self.tokens - before) / seconds
        kv = running / sum(worker.slots for worker in self.workers) * 0.9
        self.series.append((self.now, running, len(self.queue), rate, kv, 2.1 + 0.4 * self.chance.random()))

    def silence(self, name: str) -> None:
        """Stops a worker's heartbeats; its leases expire ten seconds later."""
        self.workers[int(name.rpartition("-")[2])].silent_since = self.now

    def _gain(self, worker: Worker, request: Request, seconds: float) -> None:
        gain = min(worker.speed * seconds * (0.8 + 0.4 * self.chance.random()), request.length - request.done)
        request.done += gain
        worker.tokens += gain
        self.tokens += gain
        lease = request.lease
        assert lease is not None
        if request.done >= request.length:
            self._end(worker, request, "complete")
            failed = self.chance.random() < 0.004
            request.state, request.ended_at = ("failed" if failed else "ok"), self.now
        elif request.done - lease.tokens >= self.quantum and self.queue and self.chance.random() < 0.15:
            self._end(worker, request, "give_back")
            request.state = "waiting"
            self.queue.insert(self.chance.randrange(min(len(self.queue), 20) + 1), request)

    def _lose(self, worker: Worker) -> None:
        assert worker.silent_since is not None
        if self.now - worker.silent_since < 10:
            return
        for request in list(worker.running):
            self._end(worker, request, "reap")
            request.state = "waiting"
            self.queue.insert(0, request)

    def _claim(self, lane: int, worker: Worker, request: Request) -> None:
        taken = {r.lease.row for r in worker.running if r.lease is not None}
        row = next(n for n in range(worker.slots + 1) if n not in taken)
        start = self.now - self.chance.random() * 0.5
        request.lease = Lease(lane, row, start, request, int(request.done), self.version)
        request.state = "running"
        self.leases.append(request.lease)
        worker.running.append(request)

    def _end(self, worker: Worker, request: Request, event: str) -> None:
        lease = request.lease
        assert lease is not None
        lease.end, lease.end_tokens, lease.event = self.now - 0.5, int(request.done), event
        request.chunks.append(lease)
        request.lease = None
        worker.running.remove(request)


def tokens_of(request: Request, start: int, end: int) -> tuple[list[int], list[str], list[float | None]]:
    """A response's tokens from `start` up to `end`: ids, text, log-probabilities. Each call returns the same."""
    ids: list[int] = []
    text: list[str] = []
    scores: list[float | None] = []
    for place in range(start, end):
        of_all = random.Random(f"{request.group} {place}")
        mine = random.Random(f"{request.group} {request.index} {place}")
        # Responses of a group begin alike and sometimes repeat the same sentence.
        if place < 10 or place % 160 < 24:
            ids.append(place % 160 % len(SHARED))
            text.append(SHARED[ids[-1]] + " ")
            scores.append(-0.02 - 0.1 * of_all.random())
        else:
            ids.append(100 + mine.randrange(len(WORDS)))
            text.append(WORDS[ids[-1] - 100])
            scores.append(-mine.expovariate(1.2))
    return ids, text, scores

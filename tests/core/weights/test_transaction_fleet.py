"""Under any events, a transaction ends in time, and no worker claims requests of weights that it does not have."""

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Deadlines, OnFailure, Publish, PublishMode, Source
from openseer_core.weights.transaction import (
    AbortBatches,
    ChangeVersion,
    DrainWorkers,
    advance,
    begin,
    cancel,
    participants,
)
from openseer_core.weights.worker_step import WeightsState, WeightsTarget, WorkerStep, current_attempt, next_step
from openseer_core.worker.heartbeat import Heartbeat, WeightsReport, WorkerState, WorkerStatus
from openseer_core.worker.metrics import WorkerMetrics
from tests.repository import SOAK

NAMES = ("a", "b", "c")
DEADLINES = Deadlines(prefetch=5, quiesce=8, load=6)
LONGEST_STEP = 4.0


@dataclass
class Member:
    """One worker: its weights and requests, and the fleet spec that it read last."""

    fleet_spec: FleetSpec = field(default_factory=FleetSpec)
    weights: WeightsState = field(default_factory=WeightsState)
    running: int = 0
    claimed_for: str = ""
    confirmed: tuple[int, str] = (0, "")
    error: tuple[int, str] = (0, "")
    state: str = "idle"
    seen_at: float = 0.0

    def look(self, fleet_spec: FleetSpec, outcome: str) -> WorkerStep:
        """Reads the fleet spec and takes one step; `outcome`: works, fails or hangs."""
        self.fleet_spec = fleet_spec
        step = next_step(fleet_spec, self.weights, self.running)
        if step.leaves:
            self.state = "draining"
        if step.give_back:
            self.running = 0
        if outcome == "hangs":
            return step
        if step.fetch or step.load:
            self.try_to(step, fails=outcome == "fails")
        if step.confirms and fleet_spec.active_transaction is not None:
            self.confirmed, self.error = (fleet_spec.active_transaction.id, step.confirms), (0, "")
        return step

    def try_to(self, step: WorkerStep, *, fails: bool) -> None:
        tried = current_attempt(self.fleet_spec)
        if fails:
            self.weights = replace(self.weights, failed=tried, version="" if step.load else self.weights.version)
            self.error = (tried[1], "broken")
        elif step.load is not None:
            self.weights = replace(self.weights, version=step.load.version, publisher=step.load.publisher, failed=None)
        else:
            self.weights = replace(self.weights, fetched=tried[0], failed=None)

    def status(self, name: str) -> WorkerStatus:
        transaction = self.fleet_spec.transaction
        report = WeightsReport(
            version=self.weights.version,
            transaction=transaction.id if transaction and (self.error[1] or self.confirmed[0]) else 0,
            attempt=self.error[0],
            phase=self.confirmed[1],
            error=self.error[1],
        )
        return WorkerStatus(
            name, "", self.seen_at, self.running, Heartbeat(WorkerState(self.state), WorkerMetrics({}), report)
        )


class World:
    """Members, their store, and the coordinator of the transaction."""

    def __init__(self, publish: Publish, names: int) -> None:
        self.now = 0.0
        self.members = {name: Member() for name in NAMES[:names]}
        self.waiting = {"initial": 3}
        self.fleet_spec = begin(FleetSpec(), publish, participants(self.statuses, 0.0), 0.0)

    @property
    def statuses(self) -> list[WorkerStatus]:
        return [member.status(name) for name, member in self.members.items()]

    def act(self, event: str, name: str) -> None:
        if event == "dies":
            self.members.pop(name, None)
        elif event == "boots":
            self.members[name] = Member(seen_at=self.now)
        elif event == "cancel":
            self.fleet_spec = cancel(self.fleet_spec, self.now)
        elif event == "finishes":
            self.waiting = dict.fromkeys(self.waiting, 0)
        elif name in self.members and event != "keeper":
            self.work(self.members[name], event)

    def work(self, member: Member, outcome: str) -> None:
        member.seen_at = self.now
        step = member.look(self.fleet_spec, outcome)
        if step.claims:
            assert member.weights.version == self.fleet_spec.version
            assert member.weights.publisher == self.fleet_spec.publisher
            member.claimed_for = member.weights.version
            member.running = min(1, self.waiting.get(member.weights.version, 0))

    def keep(self) -> None:
        transaction = self.fleet_spec.active_transaction
        if transaction is None:
            return
        step = advance(self.fleet_spec, self.statuses, self.waiting.get(transaction.previous, 0), self.now)
        for action in step.actions:
            self.carry_out(action)
        was, self.fleet_spec = self.fleet_spec, step.fleet_spec
        if self.fleet_spec.version != was.version:
            self.check_commit()

    def carry_out(self, action: AbortBatches | ChangeVersion | DrainWorkers) -> None:
        match action:
            case AbortBatches(version):
                self.waiting[version] = 0
            case ChangeVersion(old, new):
                self.waiting[new] = self.waiting.get(new, 0) + self.waiting.pop(old, 0)
            case DrainWorkers(names):
                for name in set(names) & set(self.members):
                    self.members[name].state = "draining"

    def check_commit(self) -> None:
        """Asserts that every participant has the new weights at the commit, and that no worker claims."""
        transaction = self.fleet_spec.transaction
        assert transaction is not None
        for status in self.statuses:
            member = self.members[status.name]
            if status.name in participants(self.statuses, self.now) and status.name not in transaction.replaced:
                fits = member.weights.has(WeightsTarget(transaction.publish.version, transaction.id))
                assert fits or status.name not in transaction.participants
            assert not next_step(self.fleet_spec, member.weights, member.running).claims


EVENTS = st.sampled_from(["works", "works", "works", "fails", "hangs", "dies", "boots", "finishes", "keeper", "cancel"])
MOVES = st.tuples(EVENTS, st.sampled_from(NAMES), st.floats(0, LONGEST_STEP))


@settings(max_examples=3000 if SOAK else 150, deadline=None)
@given(
    mode=st.sampled_from(["drain", "keep", "abort"]),
    on_failure=st.sampled_from(["abort", "replace"]),
    retries=st.integers(0, 2),
    prefetch=st.booleans(),
    names=st.integers(0, 3),
    moves=st.lists(MOVES, max_size=60),
)
def test_a_transaction_ends_in_time_and_no_claim_has_other_weights(
    mode: PublishMode,
    on_failure: OnFailure,
    retries: int,
    prefetch: bool,
    names: int,
    moves: list[tuple[str, str, float]],
) -> None:
    publish = Publish(
        version="v1",
        source=Source(path="/v1"),
        mode=mode,
        on_failure=on_failure,
        retries=retries,
        prefetch=prefetch,
        deadlines=DEADLINES,
    )
    world = World(publish, names)
    for event, name, seconds in moves:
        world.now += seconds
        world.act(event, name)
        world.keep()
    quiet = world.now
    while world.fleet_spec.active_transaction is not None and world.now < quiet + 1000:
        world.now += 0.5
        world.keep()
    transaction = world.fleet_spec.transaction
    assert transaction is not None
    assert transaction.finished_at is not None
    tries = retries + 1
    longest = tries * DEADLINES.prefetch + DEADLINES.quiesce + (tries + 1) * DEADLINES.load
    phases = tries + 6
    assert transaction.finished_at <= longest + phases * LONGEST_STEP
    assert (transaction.phase == "done") == (world.fleet_spec.version == "v1")
    for name in NAMES:
        world.act("boots", name)
        for _ in range(3):
            world.act("works", name)
        assert world.members[name].weights.version == world.fleet_spec.version

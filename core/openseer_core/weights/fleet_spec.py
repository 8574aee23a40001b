"""What the whole fleet follows: which weights to serve, whether a transaction is on, whether to sleep.

One record per job, replaced as a whole and only by a writer that has seen its latest revision. Workers and batch
controllers both act on what it says now (level-triggered), so either may die and be replaced at any moment.
"""

from typing import Literal

from pydantic import Field, PrivateAttr

from openseer_core.ids import INITIAL_VERSION
from openseer_core.json_model import JsonModel
from openseer_core.numbers import FIRST_BASE, issue
from openseer_core.weights.publish import Canary, Publish, Source, TransactionPhase


class WeightsTransaction(JsonModel):
    """A weights transaction. Times are seconds of the store's clock.

    `participants`: workers that were there when it began; `replaced`: those it goes on without. `entered_at`: when
    the phase began; `seconds`: what earlier phases took. `digest`: of the files, as the publisher has given it or all
    workers have found it; "" while nobody has.
    """

    id: int
    publish: Publish
    previous: str
    previous_source: Source | None
    phase: TransactionPhase
    attempt: int = 0
    started_at: float
    entered_at: float
    finished_at: float | None = None
    participants: tuple[str, ...] = ()
    waiting_for: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    message: str = ""
    seconds: dict[str, float] = Field(default_factory=dict)
    digest: str = ""

    @property
    def source(self) -> Source:
        """Where the new weights are, with their digest once that is known."""
        source = self.publish.source
        return source.model_copy(update={"digest": self.digest}) if self.digest else source

    @property
    def active(self) -> bool:
        """Whether it is neither done nor failed."""
        return self.phase not in ("done", "failed")


class FleetSpec(JsonModel):
    """`version` is what the fleet serves, from `source` (None: the job's own model), whose digest says what it holds.

    `versions`: published so far.
    `publisher`: the transaction that brought `version` (0: none), so that a version which failed, and was published
    again under the same name, is told apart. `canary`: what a worker that loads `version` later must agree with.
    `rest`: GPUs are lent to the trainer. `held`: new requests of the compatible routes wait, since
    `held_since` (seconds of the store's clock); batches go on. `transactions`: id of the latest.
    """

    revision: int = 0
    version: str = INITIAL_VERSION
    source: Source | None = None
    publisher: int = 0
    canary: Canary | None = None
    versions: tuple[str, ...] = (INITIAL_VERSION,)
    transaction: WeightsTransaction | None = None
    transactions: int = 0
    rest: Literal["sleep", "stop"] | None = None
    rest_since: float = 0.0
    held: bool = False
    held_since: float = 0.0
    _base: int = PrivateAttr(default=FIRST_BASE)

    def read_at(self, base: int) -> "FleetSpec":
        """A copy that numbers what follows it in an epoch of this base (see numbers.issue); for stores, at a read."""
        copy = self.model_copy()
        copy._base = base
        return copy

    def changed(self, **update: object) -> "FleetSpec":
        """A copy with these fields changed, and the revision that follows."""
        return self.model_copy(update={"revision": issue(self.revision, self._base), **update})

    @property
    def next_transaction(self) -> int:
        """The id of the transaction that begins next."""
        return issue(self.transactions, self._base)

    @property
    def awaits_digest(self) -> bool:
        """Whether nobody has said yet what the files of `version` hold: nobody was there when it was published."""
        return self.source is not None and self.source.transfer is None and self.source.digest is None

    @property
    def active_transaction(self) -> WeightsTransaction | None:
        """The transaction while it is active."""
        return self.transaction if self.transaction is not None and self.transaction.active else None

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
from openseer_core.weights.reception import Reception

MemoryPart = Literal["weights", "kv_cache"]
"""What an engine's memory holds."""
MEMORY_PARTS: tuple[MemoryPart, ...] = ("weights", "kv_cache")


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


class Adapter(JsonModel):
    """A LoRA adapter that the fleet serves beside its weights: requests name it, `version` is what samples them.

    `base`: the weights' version that it works on. `source` has its digest. `publisher`: the transaction that brought
    it. `versions`: published so far under this name, the present one last.
    """

    name: str
    version: str
    base: str
    source: Source
    publisher: int
    canary: Canary | None = None
    versions: tuple[str, ...]


class FleetSpec(JsonModel):
    """`version` is what the fleet serves, from `source` (None: the job's own model), whose digest says what it holds.

    `versions`: published so far. `adapters`: those that work on `version`, the latest last; `adapter_versions`: all
    versions of adapters so far.
    `publisher`: the transaction that brought `version` (0: none), so that a version which failed, and was published
    again under the same name, is told apart. `canary`: what a worker that loads `version` later must agree with.
    `rest`: GPUs are lent to the trainer; `awake`: what of engines that sleep is awake, and `keeps_weights`: whether
    they keep their weights in the machine's memory, or throw them away and load them again. `held`: new requests of the
    compatible routes wait, since `held_since` (seconds of the store's clock); batches go on. `transactions`: id of the
    latest. `reception`: weights that a trainer sends to one worker, for all.
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
    awake: tuple[MemoryPart, ...] = ()
    keeps_weights: bool = True
    held: bool = False
    held_since: float = 0.0
    adapters: tuple[Adapter, ...] = ()
    adapter_versions: tuple[str, ...] = ()
    reception: Reception | None = None
    _base: int = PrivateAttr(default=FIRST_BASE)

    def read_at(self, base: int) -> "FleetSpec":
        """A copy that numbers what follows it in an epoch of this base (see numbers.issue); for stores, at a read."""
        copy = self.model_copy()
        copy._base = base
        return copy

    def changed(self, **update: object) -> "FleetSpec":
        """A copy with these fields changed, and the revision that follows."""
        return self.model_copy(update={"revision": issue(self.revision, self._base), **update})

    def adapter(self, name: str) -> Adapter | None:
        """The adapter that is called so; None where there is none."""
        return next((adapter for adapter in self.adapters if adapter.name == name), None)

    @property
    def weights_awake(self) -> bool:
        """Whether engines that sleep have their weights awake, and take others."""
        return self.rest == "sleep" and "weights" in self.awake

    @property
    def served(self) -> tuple[str, ...]:
        """All versions that sample: the fleet's weights, and its adapters."""
        return (self.version, *(adapter.version for adapter in self.adapters))

    def without(self, name: str) -> "FleetSpec":
        """The fleet spec without an adapter; the same object where there is none of that name."""
        if self.adapter(name) is None:
            return self
        return self.changed(adapters=tuple(adapter for adapter in self.adapters if adapter.name != name))

    def replaced_by(self, publish: Publish) -> str:
        """The version that a publish replaces; "" where it brings the first one of an adapter."""
        if publish.adapter is None:
            return self.version
        before = self.adapter(publish.adapter.name)
        return "" if before is None else before.version

    def with_committed(self, transaction: WeightsTransaction) -> dict[str, object]:
        """What of the fleet spec changes as a transaction commits; nothing where it has done so already.

        Adapters work on the weights that they were trained on: with others they go.
        """
        publish = transaction.publish
        if publish.adapter is None:
            if self.publisher == transaction.id:
                return {}
            return {
                "version": publish.version,
                "source": transaction.source,
                "publisher": transaction.id,
                "canary": publish.canary,
                "versions": (*self.versions, publish.version),
                "adapters": (),
            }
        if any(adapter.publisher == transaction.id for adapter in self.adapters):
            return {}
        name, before = publish.adapter.name, self.adapter(publish.adapter.name)
        adapter = Adapter(
            name=name,
            version=publish.version,
            base=self.version,
            source=transaction.source,
            publisher=transaction.id,
            canary=publish.canary,
            versions=(*(before.versions if before is not None else ()), publish.version),
        )
        others = tuple(other for other in self.adapters if other.name != name)
        return {"adapters": (*others, adapter), "adapter_versions": (*self.adapter_versions, publish.version)}

    @property
    def next_transaction(self) -> int:
        """The id of the transaction that begins next."""
        return issue(self.transactions, self._base)

    @property
    def awaits_digest(self) -> bool:
        """Whether nobody has said yet what the files of `version` hold: nobody was there when it was published."""
        return self.source is not None and self.source.digest is None

    @property
    def active_transaction(self) -> WeightsTransaction | None:
        """The transaction while it is active."""
        return self.transaction if self.transaction is not None and self.transaction.active else None

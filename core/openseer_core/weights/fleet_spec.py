"""The fleet spec: the record of the weights to serve, the transaction, and the sleep of engines.

Each job has one record. A writer replaces the whole record, and only if it has read the latest revision. Workers and
batch controllers act on the present content (level-triggered), so each of them may be replaced at any moment.
"""

from typing import Literal

from pydantic import Field, PrivateAttr

from openseer_core.ids import INITIAL_VERSION
from openseer_core.json_model import JsonModel
from openseer_core.numbers import FIRST_BASE, issue
from openseer_core.weights.publish import Canary, Publish, Source, TransactionPhase
from openseer_core.weights.reception import Reception

MemoryPart = Literal["weights", "kv_cache"]
"""The parts of an engine's memory."""
MEMORY_PARTS: tuple[MemoryPart, ...] = ("weights", "kv_cache")


class WeightsTransaction(JsonModel):
    """A weights transaction. Times are seconds of the store's clock.

    `previous`: the version that it replaces, "" for the first version of an adapter; `previous_source`: source of the
    fleet's weights at its start. `participants`: the workers that have to confirm its phases; `replaced`: participants
    that it continues without. `entered_at`: start of the phase, or of the phase's latest attempt; `seconds`: time spent
    by phase, without that attempt. `waiting_for`: after a failure, the workers that had failed or not confirmed.
    `message`: the latest problems. `digest`: of the files, from the publisher or from all workers; "" while unknown.
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
        """The source of the new weights, with their digest once it is known."""
        source = self.publish.source
        return source.model_copy(update={"digest": self.digest}) if self.digest else source

    @property
    def active(self) -> bool:
        """Whether it is neither done nor failed."""
        return self.phase not in ("done", "failed")


class Adapter(JsonModel):
    """A LoRA adapter that the fleet serves beside its weights. Requests contain `name`; their tokens are sampled from
    `version`.

    `base`: the version of the weights on which the adapter works. `source`: with its digest. `publisher`: the
    transaction that published it. `versions`: all versions published under this name, the present one last.
    """

    name: str
    version: str
    base: str
    source: Source
    publisher: int
    canary: Canary | None = None
    versions: tuple[str, ...]


class FleetSpec(JsonModel):
    """The record that the whole fleet follows. `version`: the served weights; `source`: their source, None for the
    job's own model.

    `versions`: the initial version and all published ones, the latest last. `publisher`: the transaction that published
    `version` (0: none); it distinguishes a failed version from one published again under the same name. `canary`:
    scores with which a worker compares its own after it has loaded `version`. `adapters`: those that work on `version`,
    the latest last; `adapter_versions`: all published versions of adapters. `transaction`: the latest one, also after
    its end; `transactions`: its id. `rest`: set while the GPUs are lent to the trainer (engines sleep, or workers are
    stopped); `rest_since`: time of its latest change; `awake`: the awake parts of sleeping engines; `keeps_weights`:
    whether sleeping engines keep their weights in the machine's memory, or discard and later reload them. `held`:
    whether new requests of the compatible routes wait, since `held_since`; batches continue. `reception`: weights that
    a trainer sends to one worker, for all. Times are seconds of the store's clock.
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
        """A copy whose next numbers are issued in an epoch with this base (see numbers.issue); stores call it."""
        copy = self.model_copy()
        copy._base = base
        return copy

    def changed(self, **update: object) -> "FleetSpec":
        """A copy with these fields changed and the next revision."""
        return self.model_copy(update={"revision": issue(self.revision, self._base), **update})

    def adapter(self, name: str) -> Adapter | None:
        """The adapter of this name; None if there is none."""
        return next((adapter for adapter in self.adapters if adapter.name == name), None)

    @property
    def weights_awake(self) -> bool:
        """Whether engines sleep with their weights awake, so that they can load others."""
        return self.rest == "sleep" and "weights" in self.awake

    @property
    def served(self) -> tuple[str, ...]:
        """All versions from which the fleet samples: its weights and its adapters."""
        return (self.version, *(adapter.version for adapter in self.adapters))

    def without(self, name: str) -> "FleetSpec":
        """A copy without the adapter of this name; the same object if there is none."""
        if self.adapter(name) is None:
            return self
        return self.changed(adapters=tuple(adapter for adapter in self.adapters if adapter.name != name))

    def replaced_by(self, publish: Publish) -> str:
        """The version that a publish will replace; "" for the first version of an adapter."""
        if publish.adapter is None:
            return self.version
        before = self.adapter(publish.adapter.name)
        return "" if before is None else before.version

    def with_committed(self, transaction: WeightsTransaction) -> dict[str, object]:
        """The fields of the fleet spec that change when a transaction commits; empty if it has committed already.

        New weights remove all adapters, because an adapter works only on the weights that it was trained on.
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
        """The id of the next transaction."""
        return issue(self.transactions, self._base)

    @property
    def awaits_digest(self) -> bool:
        """Whether the digest of `version` is unknown, because the fleet had no worker when it was published."""
        return self.source is not None and self.source.digest is None

    @property
    def active_transaction(self) -> WeightsTransaction | None:
        """The transaction if it is active, else None."""
        return self.transaction if self.transaction is not None and self.transaction.active else None

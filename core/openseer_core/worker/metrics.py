"""The metrics in a worker's heartbeat: one mapping by name, read through typed properties."""

from math import inf

from openseer_core.admission import ModelLimits
from openseer_core.worker.context_metrics import ContextCounts
from openseer_core.worker.draft_metrics import DraftMetrics
from openseer_core.worker.time_metrics import WorkerSeconds

Metric = float | int | str

GPU_PREFIX = "gpu"
"""Prefix of the names of GPU metrics: gpu0_… for GPU 0."""


class WorkerMetrics(dict[str, Metric]):
    """Metrics by name, as the heartbeat is stored; a reader ignores unknown names.

    A worker sets only metrics that it can measure: no gpuN_… without a GPU, no draft counters without drafts.
    A property is 0 or "" where the worker reports nothing, or text instead of a number.
    """

    @property
    def slots(self) -> int:
        """Limit of concurrent requests."""
        return int(self._number("slots"))

    @property
    def running(self) -> int:
        """Requests that the engine runs now."""
        return int(self._number("running"))

    @property
    def tokens(self) -> int:
        """Tokens generated since the worker's start."""
        return int(self._number("tokens"))

    @property
    def preemptions(self) -> int:
        """Requests that the engine has preempted since its start."""
        return int(self._number("preemptions"))

    @property
    def kv_used(self) -> float:
        """Share of the KV blocks in use, 0 to 1."""
        return float(self._number("kv_used"))

    @property
    def kv_reserved(self) -> float:
        """Share of the KV blocks that running requests may use until their next decision, 0 to 1."""
        return float(self._number("kv_reserved"))

    @property
    def kv_tokens(self) -> int:
        """Capacity of the KV cache, in tokens; 0 if the worker does not report it."""
        return int(self._number("kv_tokens"))

    @property
    def held_tokens(self) -> int:
        """Tokens, prompts included, that other workers would have to compute again if this worker left."""
        return int(self._number("held_tokens"))

    @property
    def free_pace(self) -> float:
        """Tokens per second of one response at the worker, if its last claim found no request; else 0."""
        pace = float(self._number("free_pace"))
        return pace if 0 < pace < inf else 0.0

    @property
    def limits(self) -> ModelLimits:
        """The limits of one request at this worker; unknown if it reports none."""
        return ModelLimits.of(self)

    @property
    def pod(self) -> str:
        """Uid of the worker's pod; "" outside a cluster."""
        return str(self.get("pod", ""))

    @property
    def sick(self) -> str:
        """The reason why the worker's GPU must not be used; "" if it is healthy."""
        return str(self.get("sick", ""))

    @property
    def speculation(self) -> str:
        """ "on", or "off: " and the reason; "" if the worker reports neither."""
        return str(self.get("drafts", ""))

    @property
    def drafts(self) -> DraftMetrics:
        """Counters of the worker's drafts."""
        return DraftMetrics.of(self)

    @property
    def contexts(self) -> ContextCounts:
        """Counters of the contexts' tokens that the engine computed, had cached, or fetched."""
        return ContextCounts.of_heartbeat(self)

    @property
    def seconds(self) -> WorkerSeconds | None:
        """The worker's seconds by use; None if it does not count them."""
        return WorkerSeconds.of_heartbeat(self)

    @property
    def gpus(self) -> dict[str, Metric]:
        """Metrics of the worker's GPUs, by name."""
        return {name: value for name, value in self.items() if name.startswith(GPU_PREFIX)}

    def _number(self, name: str) -> float:
        value = self.get(name, 0)
        return 0 if isinstance(value, str) else value

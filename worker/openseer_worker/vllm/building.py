"""Builds an engine: with drafts where they can make it faster, otherwise as vLLM is without them."""

import logging
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from openseer_core.manifest.job import Model, Parallelism, Sampling, Speculation
from openseer_worker.engine import EngineProfile
from openseer_worker.gang import GangPlace
from openseer_worker.kv_pool.places import EnginePool
from openseer_worker.vllm import environment
from openseer_worker.vllm.drafting.link import DraftLink
from openseer_worker.vllm.drafting.no_gain import NoGainRecord, facts_of
from openseer_worker.vllm.profile import device_text, layout_of, profile_of
from openseer_worker.vllm.routing.link import RouteLink
from openseer_worker.vllm.routing.shape import row_shape, wants_routes

_LOG = logging.getLogger(__name__)
SHUTDOWN_SECONDS = 10.0
"""Timeout for the end of an engine, in seconds."""
COUNT_NAN = "VLLM_COMPUTE_NANS_IN_LOGITS"
"""vLLM's environment variable: 1 makes it count NaN in each request's logits, for one pass over them per step."""
_HEAVY = (
    "openseer_worker.vllm.arguments",
    "vllm.model_executor.model_loader",
    "vllm.v1.engine.core",
    "vllm.v1.engine.core_client",
    "vllm.v1.engine.input_processor",
    "vllm.v1.executor.uniproc_executor",
)
_HEAVY_CPU = ("vllm.v1.worker.cpu_worker", "openseer_worker.vllm.cpu")


def preload(model_path: str = "") -> None:
    """Imports vLLM and other modules that import slowly, so that the workers a parent forks afterwards start in
    seconds.

    Starts no thread, and uses no device. Raises ModelError if vLLM is missing, or of a version that is not checked.
    """
    environment.check_version()
    environment.prepare(model_path)
    for module in _HEAVY + (_HEAVY_CPU if environment.is_cpu_build() else ()):
        import_module(module)


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine that can step. `core`: vLLM's client of the engine's core; `config`: the VllmConfig; `inputs`: vLLM's
    processor, which makes the core's requests."""

    core: Any
    config: Any
    inputs: Any
    profile: EngineProfile
    drafts: DraftLink
    routes: RouteLink


class EngineBuilder:
    """Builds engines of one model. `sampling`: of the job; `place`: of a gang's leader; `pool`: of KV blocks;
    `routes`: whether routed experts are captured.

    `no_gain`: folder of records that drafts do not pay. With this folder, an engine is built again without drafts if
    its step profile shows that they do not pay. Without the folder (on a CPU) such an engine stays and drafts nothing,
    which costs no time there.
    """

    def __init__(
        self,
        model: Model,
        parallelism: Parallelism,
        sampling: Sampling,
        place: GangPlace | None = None,
        no_gain: Path | None = None,
        pool: EnginePool | None = None,
        *,
        routes: bool = False,
    ) -> None:
        self._routes = routes
        self._model = model
        self._parallelism = parallelism
        self._sampling = sampling
        self._place = place
        self._pool = pool
        self._on_cpu = on_cpu = environment.is_cpu_build()
        self._in_process = (model.engine_process or ("inProcess" if on_cpu else "child")) == "inProcess"
        # All ranks of a gang must be built alike, but each machine would have its own record.
        self._records = no_gain if place is None else None

    def build(self, speculation: Speculation | None, no_drafts: str) -> BuiltEngine:
        """Builds the engine. `speculation`: settings of its drafts; None without drafts, whose reason is `no_drafts`.

        Raises ModelError if vLLM cannot use the model.
        """
        if speculation is None:
            return self._build(None, no_drafts)
        record = self._record(speculation)
        if record is not None and (known := record.read()):
            return self._build(None, known)
        engine = self._build(speculation, "")
        reason = engine.drafts.start(engine.inputs, engine.profile, self._sampling, speculation.max_tokens)
        if not reason or record is None:
            return engine
        _LOG.warning("the engine is built again without drafts: %s", reason)
        record.keep(reason)
        engine.core.shutdown(SHUTDOWN_SECONDS)
        return self._build(None, reason)

    def _record(self, speculation: Speculation) -> NoGainRecord | None:
        if self._records is None:
            return None
        device = device_text(self._parallelism.gpus, on_cpu=self._on_cpu)
        facts = facts_of(self._model, self._parallelism, self._sampling, speculation)
        return NoGainRecord(self._records, {"device": device, "engine": environment.engine_version(), **facts})

    def _build(self, speculation: Speculation | None, no_drafts: str) -> BuiltEngine:
        from openseer_worker.vllm import arguments as vllm_arguments

        arguments = vllm_arguments.engine_arguments(
            self._model,
            self._parallelism,
            self._sampling.logprobs,
            on_cpu=self._on_cpu,
            place=self._place,
            speculation=speculation,
            pool=self._pool,
            routes=self._routes,
        )
        if speculation is not None and not self._in_process:
            from openseer_draft.warm import warm_up  # imports numba, which other workers do not need

            warm_up()  # compiles the drafter (14 s, once per machine) before the start of the child that uses it
        # Log-probabilities show NaN without a count; with drafts vLLM attributes its counts to wrong requests.
        os.environ[COUNT_NAN] = str(int(speculation is None and self._sampling.logprobs == "none"))
        with vllm_arguments.readable(f"spec.model: vLLM cannot run {self._model.path}", self._model):
            core, config, inputs = self.make(arguments)
        routing = row_shape(config.model_config) if self._routes else None
        layout, moves = layout_of(core.collective_rpc("kv_rows")[0]), self._pool is not None
        profile = profile_of(config, layout, on_cpu=self._on_cpu, routing=routing, contexts_move=moves)
        drafts = DraftLink(core, no_drafts if speculation is None else "", idle=self._routes)
        if speculation is None and self._routes:
            drafts.attach()
        return BuiltEngine(core, config, inputs, profile, drafts, RouteLink(core, routing))

    def make(self, arguments: Any) -> tuple[Any, Any, Any]:
        """Returns vLLM's core for its EngineArgs, its configuration, and the processor that makes its requests.

        A separate method, so that the speculation benchmark can change the arguments to vLLM's own draft methods.
        """
        return make_core(arguments, in_process=self._in_process)


def make_core(arguments: Any, *, in_process: bool) -> tuple[Any, Any, Any]:
    """Returns vLLM's core for its EngineArgs, its configuration, and the processor of its requests.

    Raises vLLM's errors; ModelError if routed experts are to be captured and the model has none.
    """
    from vllm.renderers import renderer_from_config
    from vllm.v1.engine.core_client import EngineCoreClient
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.executor import Executor

    from openseer_worker.vllm import configuration

    # vLLM chooses its executor by this variable, in addition to `multiprocess_mode`.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if in_process else "1"
    config = configuration.create(arguments)
    if wants_routes(config):
        row_shape(config.model_config)  # a model without experts is refused before it is loaded
    renderer = renderer_from_config(config)
    inputs = InputProcessor(config, renderer)
    core = EngineCoreClient.make_client(
        multiprocess_mode=not in_process,
        asyncio_mode=False,
        vllm_config=config,
        executor_class=Executor.get_class(config),
        log_stats=True,
        renderer=renderer,
    )
    return core, config, inputs

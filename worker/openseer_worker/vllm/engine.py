"""The vLLM engine: vLLM's core, stepped in a separate thread.

On the event loop's side, commands are appended to a list and outputs are taken by swapping a dictionary. The thread
applies the commands between two steps and gathers the outputs of each step. It calls vLLM's core directly: vLLM's own
output path creates several objects per token, for text and streams that are not used here.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from openseer_core.admission import overflow
from openseer_core.errors import EngineError, LoadError, ModelError
from openseer_core.manifest.job import Model, Parallelism, Sampling, Speculation
from openseer_core.queue.states import FinishReason
from openseer_core.tokens import ITEM_BYTES
from openseer_core.worker.speculation_enabled import MIN_P_IGNORED
from openseer_text.reading import Reader, reader_of
from openseer_text.stop_strings import StopChecker
from openseer_worker.engine import DraftNews, EngineOutput, EngineRequest, NewAdapter, NewWeights
from openseer_worker.gang import GangPlace
from openseer_worker.kv_pool.places import EnginePool
from openseer_worker.vllm import environment, weight_loading
from openseer_worker.vllm.adapters import Adapters
from openseer_worker.vllm.building import SHUTDOWN_SECONDS, EngineBuilder, preload
from openseer_worker.vllm.engine_calls import EngineCall
from openseer_worker.vllm.kv_pool.metrics import ContextMeter
from openseer_worker.vllm.outputs import ResponseState, preemptions, read

_Result = TypeVar("_Result")
_LOG = logging.getLogger(__name__)
_JOIN_SECONDS = 10.0
_TASKS = ("generate",)


class VllmEngine:
    """One vLLM engine. The constructor loads the model (seconds to minutes); `start` begins to step.

    `sampling`: the job's. The engine records its kind of log-probabilities; a request may need that kind or none.
    `cache_salt`: job and weights version, to separate cached prefixes. `place`: of a gang's leader, whose followers run
    `gang.VllmRank`. `speculation`: settings of drafts; None without drafts, whose reason is `no_drafts`. `no_gain`,
    `pool`, `routes`: see EngineBuilder. Raises ModelError if vLLM cannot use the model, or its scores are not finite.
    """

    def __init__(
        self,
        model: Model,
        parallelism: Parallelism | None = None,
        sampling: Sampling | None = None,
        *,
        cache_salt: str,
        place: GangPlace | None = None,
        speculation: Speculation | None = None,
        no_drafts: str = "it was not enabled",
        no_gain: Path | None = None,
        pool: EnginePool | None = None,
        routes: bool = False,
        builder: type[EngineBuilder] = EngineBuilder,
    ) -> None:
        preload(model.path)
        from openseer_worker.vllm import arguments as vllm_arguments

        self._arguments = vllm_arguments
        sampling = sampling or Sampling()
        self._logprobs = sampling.logprobs
        self._cache_salt = cache_salt
        self._own_model = model.path
        if place is not None:
            environment.set_host(place.host)
        engines = builder(model, parallelism or Parallelism(), sampling, place, no_gain, pool, routes=routes)
        built = engines.build(speculation, no_drafts)
        try:
            weight_loading.check_scores(built.core, built.inputs, built.profile)
        except LoadError as error:
            built.core.shutdown(SHUTDOWN_SECONDS)
            raise ModelError(f"spec.model.path: {model.path}: {error}") from error
        self._core: Any = built.core
        self._config, self._inputs = built.config, built.inputs
        tokenizer: Any = built.inputs.tokenizer
        self._reader = None if tokenizer is None else reader_of(tokenizer)
        self.profile, self._drafts, self._routes = built.profile, built.drafts, built.routes
        self._vocabulary: int = built.config.model_config.get_vocab_size()
        self._lock = threading.Condition()
        self._commands: list[EngineRequest | str] = []
        self._calls: list[EngineCall] = []
        self._outputs: dict[str, EngineOutput] = {}
        self._closing = self._asleep = False
        self._failure: EngineError | None = None
        self._running: dict[str, ResponseState] = {}
        self._adapters = Adapters(vllm_arguments.most_adapters(model.lora))
        self._steps = self._tokens = self._preemptions = 0
        self._stats: Any = None
        self._contexts = ContextMeter()
        self._thread: threading.Thread | None = None
        self._wake: Callable[[], None] = _nobody

    # The event loop's side.

    @property
    def drafts(self) -> bool:
        return self._drafts.on

    def start(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._thread = threading.Thread(target=self._run, name="openseer-engine", daemon=True)
        self._thread.start()

    def add(self, request: EngineRequest) -> None:
        self._command(request)

    def abort(self, key: str) -> None:
        self._command(key)

    async def feed(self, news: DraftNews) -> list[int]:
        return await self._call(lambda: self._drafts.feed(news))

    async def load_weights(self, weights: NewWeights) -> None:
        def action() -> None:
            self._check_idle()
            self._adapters.clear(self._core)
            self._cache_salt = weights.salt
            weight_loading.load(self._core, weights, self._own_model)
            if not self._asleep:  # scoring needs a KV cache
                weight_loading.check_scores(self._core, self._inputs, self.profile)

        await self._call(action)

    async def load_adapter(self, adapter: NewAdapter) -> None:
        def action() -> None:
            self._adapters.load(self._core, adapter)
            request = self._adapters.request(adapter.version)
            weight_loading.check_scores(self._core, self._inputs, self.profile, request, self._gather_aside)

        await self._call(action)

    async def drop_adapter(self, version: str) -> None:
        await self._call(lambda: self._adapters.drop(self._core, version))

    async def score(self, tokens: list[int], adapter: str = "") -> list[float]:
        def action() -> list[float]:
            if not adapter:
                self._check_idle()
            request, limit = self._adapters.request(adapter), self.profile.context_tokens
            return weight_loading.score(self._core, self._inputs, tokens, limit, request, self._gather_aside)

        return await self._call(action)

    async def sleep(self, *, keep_weights: bool) -> bool:
        def action() -> bool:
            self._check_idle()
            freed = weight_loading.sleep(self._core, self._config, keep_weights=keep_weights)
            self._asleep = True
            return freed

        return await self._call(action)

    async def wake(self, *, weights_only: bool) -> None:
        def action() -> None:
            weight_loading.wake(self._core, weights_only=weights_only)
            self._asleep = weights_only

        await self._call(action)

    async def check_weights(self) -> None:
        await self._call(lambda: weight_loading.check_scores(self._core, self._inputs, self.profile))

    async def _call(self, action: Callable[[], _Result]) -> _Result:
        """Runs `action` in the engine's thread, between two steps; returns its result. Raises LoadError."""
        call = EngineCall(action)
        with self._lock:
            if self._closing:
                raise LoadError("the engine has ended")
            self._calls.append(call)
            self._lock.notify()
        return await asyncio.wrap_future(call.outcome)

    def _command(self, command: EngineRequest | str) -> None:
        with self._lock:
            self._commands.append(command)
            self._lock.notify()

    def collect(self) -> list[EngineOutput]:
        with self._lock:
            outputs, self._outputs = self._outputs, {}
        return list(outputs.values())

    def metrics(self) -> dict[str, float | int | str]:
        stats = self._stats if self._running else None
        return {
            "steps": self._steps,
            "tokens": self._tokens,
            "preemptions": self._preemptions,
            "running": stats.num_running_reqs if stats else 0,
            "waiting": stats.num_waiting_reqs + stats.num_skipped_waiting_reqs if stats else 0,
            "kv_used": stats.kv_cache_usage if stats else 0.0,
            **self._contexts.metrics(),
            **self._drafts.metrics(),
        }

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        with self._lock:
            self._closing = True
            self._lock.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _JOIN_SECONDS)
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        core, self._core = self._core, None
        if core is not None:
            core.shutdown(SHUTDOWN_SECONDS)

    # The engine thread's side.

    def _run(self) -> None:
        try:
            while (commands := self._next_commands()) is not None:
                ended = self._apply(commands)
                self._do_calls()
                if self._running:
                    ended |= self._gather(self._core.get_output())
                    self._drafts.read(at_rest=not self._running)
                if ended:
                    self._wake()
        except Exception as error:  # noqa: BLE001 - any error that ends this thread must reach the event loop
            _LOG.exception("the engine failed")
            self._failure = EngineError(f"the engine failed: {error or type(error).__name__}")
            self._wake()
        with self._lock:
            self._closing = True
            calls, self._calls = self._calls, []
        for call in calls:
            call.refuse()

    def _do_calls(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, []
        for call in calls:
            call.run()

    def _check_idle(self) -> None:
        if self._running:
            raise LoadError(f"{len(self._running)} responses are still running")

    def _next_commands(self) -> list[EngineRequest | str] | None:
        """Returns the commands since the last step, and waits for a command or call while no request runs. None when
        the engine is closing."""
        with self._lock:
            while not (self._commands or self._calls or self._running or self._closing):
                self._lock.wait()
            commands, self._commands = self._commands, []
            return None if self._closing else commands

    def _apply(self, commands: list[EngineRequest | str]) -> bool:
        """Adds requests to vLLM and aborts others; returns whether a request has ended."""
        ended: dict[str, tuple[FinishReason, str]] = {}
        aborted, ready = list[str](), self._routes.flush(self._running) if commands else []
        for command in commands:
            if isinstance(command, EngineRequest):
                refused = self._admit(command)
                if refused is not None:
                    ended[command.key] = refused
            elif self._running.pop(command, None) is not None:
                aborted.append(command)
                ended[command] = (FinishReason.ABORTED, "")
        if aborted:
            self._core.abort_requests(aborted)
        with self._lock:
            for output in ready:
                self._add_output(output)
            for key, (finish, reason) in ended.items():
                output = self._outputs.setdefault(key, EngineOutput(key))
                output.finish, output.stop_reason = finish, reason
        return bool(ended)

    def _admit(self, request: EngineRequest) -> tuple[FinishReason, str] | None:
        """Adds a request to vLLM. If the request has ended already or cannot run, returns how and why instead."""
        limit = self._arguments.token_limit(request)
        if request.adapter and request.adapter not in self._adapters:
            return FinishReason.ABORTED, ""
        if no_room := overflow(len(request.prompt), 0, self.profile.limits, room=1):
            return FinishReason.INFRA_FAILED, no_room
        if len(request.tokens) >= limit or (request.tokens and request.sampling.score_from is not None):
            return FinishReason.LENGTH, ""
        if len(request.prompt) + len(request.tokens) >= self.profile.request_tokens:
            return FinishReason.CONTEXT_FULL, ""
        wanted = request.sampling.logprobs
        if wanted not in (self._logprobs, "none"):
            return FinishReason.INFRA_FAILED, f"this engine records {self._logprobs} log-probabilities, not {wanted}"
        if request.sampling.min_p > 0 and self._drafts.built:
            return FinishReason.INFRA_FAILED, f"minP: {MIN_P_IGNORED}; set spec.speculation.enabled: false"
        try:
            self._submit(request, limit, recorded=wanted != "none")
        except self._arguments.REFUSALS as error:
            # A request that vLLM refuses (for instance for a token outside the vocabulary) must not end the others.
            return FinishReason.INFRA_FAILED, str(error)
        return None

    def _submit(self, request: EngineRequest, limit: int, *, recorded: bool) -> None:
        from vllm.inputs.engine import tokens_input

        sampling = request.sampling
        remaining = min(limit, self.profile.request_tokens - len(request.prompt)) - len(request.tokens)
        reader = self._stop_reader(request)
        stops = reader.stop_token_ids(sampling.stop) if reader is not None else []
        # A tokenizer may have more tokens than the embedding has rows; the surplus is never sampled.
        stops = [token for token in stops if token < self._vocabulary]
        # An engine that records log-probabilities computes them for every request: they are its only check for NaN.
        scored = self._logprobs != "none"
        params = self._arguments.sampling_params(request, remaining, stops, log_probabilities=scored)
        salt = self._adapters.salt(request.adapter) if request.adapter else self._cache_salt
        prompt = tokens_input(request.prompt + request.tokens, cache_salt=salt)
        lora = self._adapters.request(request.adapter)
        sent: Any = self._inputs.process_inputs(request.key, prompt, params, _TASKS, lora_request=lora)
        self._arguments.drop_stops_past(self._vocabulary, sent.sampling_params)
        sent.external_req_id = request.key
        checker = None
        if reader is not None:
            checker = StopChecker(reader, sampling.stop, request.tokens, sampling.min_tokens)
        self._core.add_request(sent)
        self._contexts.awaits(request.key, self._tokens)
        state = ResponseState(len(request.tokens), limit, scored, recorded, checker)
        state.resumed = bool(request.tokens)
        if recorded:
            state.top = sampling.top_logprobs
        if sampling.score_from is not None:
            state.given = request.prompt[sampling.score_from :]
        self._running[request.key] = state

    def _stop_reader(self, request: EngineRequest) -> Reader | None:
        """Returns the reader that checks a response for its stop strings; None for a request without stop strings."""
        if not request.sampling.stop or self._arguments.is_forced(request):
            return None
        if self._reader is None:
            raise ValueError("stop strings need a tokenizer")
        return self._reader

    def _gather(self, outputs: Any) -> bool:
        """Processes the outputs of one step; returns whether a response has ended."""
        self._steps += 1
        if outputs.scheduler_stats is not None:
            self._stats = outputs.scheduler_stats
        produced = [
            read(output, state)
            for output in outputs.outputs
            if (state := self._running.get(output.request_id)) is not None
        ]
        generated = (output for output in produced if not self._running[output.key].given)
        self._tokens += sum(len(output.tokens) for output in generated) // ITEM_BYTES
        self._contexts.take(outputs, self._running, self._tokens)
        eventful = [output for output in outputs.outputs if output.events]
        self._preemptions += sum(preemptions(output) for output in eventful if output.request_id in self._running)
        ready = self._routes.pass_on(produced, self._running)
        with self._lock:
            for output in ready:
                self._add_output(output)
        ended = {output.key for output in produced if output.finish is not None}
        if ended:
            self._end(ended, outputs)
        return bool(ended)

    def _gather_aside(self, outputs: Any) -> None:
        """Processes the outputs of a step while a sequence is scored, and applies new commands: the score may wait for
        a slot that an abort frees."""
        with self._lock:
            commands, self._commands = self._commands, []
        if self._gather(outputs) | self._apply(commands):
            self._wake()

    def _add_output(self, output: EngineOutput) -> None:
        before = self._outputs.get(output.key)
        if before is None:
            self._outputs[output.key] = output
        else:
            before.add(output)

    def _end(self, keys: set[str], outputs: Any) -> None:
        """Removes responses that have ended, and aborts those that vLLM would continue."""
        for key in keys:
            del self._running[key]
        surplus = [
            output.request_id
            for output in outputs.outputs
            if output.request_id in keys and output.finish_reason is None
        ]
        if surplus:
            self._core.abort_requests(surplus)


def _nobody() -> None:
    """Replaces the caller's `wake` before `start`."""

"""A follower's part of an engine that spans several nodes: vLLM's executor without a scheduler.

The executor is the same as in `vllm serve --headless`. The leader's engine reaches it through torch and vLLM's own
queues; this module only builds, watches and ends it. It was run on CPUs (two nodes, tensor parallel); on GPUs of
several machines, and with pipeline stages, it has not been run yet.
"""

from typing import Any

from openseer_core.manifest.job import Model, Parallelism, Sampling, Speculation
from openseer_worker.gang import GangPlace
from openseer_worker.kv_pool.places import EnginePool
from openseer_worker.vllm import environment
from openseer_worker.vllm.building import preload


class VllmRank:
    """The engine's processes on one node. The constructor starts them, and returns only when all nodes of the gang have
    started theirs.

    Raises ModelError if vLLM cannot use the model.
    """

    def __init__(
        self,
        model: Model,
        parallelism: Parallelism,
        sampling: Sampling,
        place: GangPlace,
        speculation: Speculation | None = None,
        pool: EnginePool | None = None,
        *,
        routes: bool = False,
    ) -> None:
        preload(model.path)
        from vllm.v1.executor.multiproc_executor import MultiprocExecutor

        from openseer_worker.vllm import arguments as vllm_arguments
        from openseer_worker.vllm import configuration

        environment.set_host(place.host)
        on_cpu = environment.is_cpu_build()
        arguments = vllm_arguments.engine_arguments(
            model,
            parallelism,
            sampling.logprobs,
            on_cpu=on_cpu,
            place=place,
            speculation=speculation,
            pool=pool,
            routes=routes,
        )
        with vllm_arguments.readable(f"spec.model: vLLM cannot run {model.path}", model):
            config = configuration.create(arguments, headless=True)
            self._executor: Any = MultiprocExecutor(config, monitor_workers=False)

    def wait(self) -> None:
        """Blocks until one of the processes has ended, or `close` is called."""
        self._executor.start_worker_monitor(inline=True)

    def close(self) -> None:
        """Ends the processes."""
        self._executor.shutdown()

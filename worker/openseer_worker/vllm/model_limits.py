"""The limits of one request by vLLM's model configuration, with rope factors and overrides; needs no engine.

`python -m openseer_worker.vllm.model_limits [--routes]` reads a manifest's model as JSON and prints the limits; it
takes 10 s of CPU, mostly for the import of vLLM. With `--routes` it refuses a model whose experts cannot be captured.
"""

import os
import sys

from openseer_core.admission import ModelLimits
from openseer_core.errors import OpenseerError
from openseer_core.manifest.job import Model, Parallelism
from openseer_process.logs import start_log
from openseer_process.termination import report
from openseer_worker.vllm import environment
from openseer_worker.vllm.routing.shape import row_shape

ROUTES = "--routes"


def model_limits(model: Model, *, routes: bool = False) -> ModelLimits:
    """Returns the context and the vocabulary of a model, in tokens. With `max_model_len: -1` an engine may later reduce
    the context to fit its memory.

    Raises ModelError for a model or arguments that vLLM cannot use, with `routes` also for a model without experts.
    """
    environment.check_version()
    environment.prepare(model.path)
    from openseer_worker.vllm import arguments

    stated = arguments.engine_arguments(model, Parallelism(), "none", on_cpu=environment.is_cpu_build())
    with arguments.readable(f"spec.model: vLLM cannot run {model.path}", model):
        config = stated.create_model_config()
        limits = ModelLimits(config.max_model_len, config.get_vocab_size())
    if routes:
        row_shape(config)
    return limits


def main() -> int:
    """Reads a model from standard input and prints its limits as JSON. Returns the exit code: 0, or a core error's."""
    out = os.dup(1)
    os.dup2(2, 1)  # libraries print to standard output, which must contain only the limits
    try:
        model = Model.model_validate_json(sys.stdin.buffer.read())
        limits = model_limits(model, routes=ROUTES in sys.argv[1:])
    except OpenseerError as error:
        start_log()
        return report(error)
    os.write(out, limits.to_json().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())

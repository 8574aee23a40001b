"""What one request may have by vLLM's own configuration, without an engine: rope factors, overrides and all.

`python -m openseer_worker.vllm.model_limits`: a manifest's model as JSON comes in, the limits go out; 10 s of CPU, most
of them for the import of vLLM.
"""

import os
import sys

from openseer_core.admission import ModelLimits
from openseer_core.errors import OpenseerError
from openseer_core.manifest.job import Model, Parallelism
from openseer_process.termination import report, start_log
from openseer_worker.vllm import environment


def model_limits(model: Model) -> ModelLimits:
    """Context and vocabulary of a model; one that vLLM fits to its memory (`max_model_len: -1`) may get less.

    Raises ModelError for a model or arguments that vLLM cannot use.
    """
    environment.check_version()
    environment.prepare(model.path)
    from openseer_worker.vllm import arguments

    stated = arguments.engine_arguments(model, Parallelism(), "none", on_cpu=environment.is_cpu_build())
    with arguments.readable(f"spec.model: vLLM cannot run {model.path}", model):
        config = stated.create_model_config()
        return ModelLimits(config.max_model_len, config.get_vocab_size())


def main() -> int:
    """Limits of the model on standard input, as JSON on standard output. Exit codes: those of core's errors."""
    out = os.dup(1)
    os.dup2(2, 1)  # libraries print to standard output; that is for the answer alone
    try:
        limits = model_limits(Model.model_validate_json(sys.stdin.buffer.read()))
    except OpenseerError as error:
        start_log()
        return report(error)
    os.write(out, limits.to_json().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())

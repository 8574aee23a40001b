"""Measures whether drafting speeds up decoding on this device: `openseer bench-gpu` without other dependencies.

    python benchmarks/gpu.py --minutes 8

Needs vLLM, numpy, pydantic, msgspec and core/, draft/ and worker/ on the path (PYTHONPATH=core:draft:worker).
"""

import argparse
import json
import sys
from pathlib import Path

from support.stamp import Stamp

from openseer_core.errors import OpenseerError
from openseer_worker.gpu_bench.main import command_of, run
from openseer_worker.gpu_bench.options import OUTPUT, BenchOptions, listed, numbers
from openseer_worker.gpu_bench.plan import BATCHES, WAYS
from openseer_worker.gpu_bench.shapes import SHAPES


def main() -> int:
    """The exit code is that of `openseer bench-gpu`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, help="time limit of the measurement; default: 8 on a GPU, 4.5 on a CPU"
    )
    parser.add_argument("--model", type=Path, help="folder of a real model, instead of a shape")
    parser.add_argument("--shape", default="", help=f"{', '.join(SHAPES)}; default: 8b on a GPU, tiny on a CPU")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), help="numbers of concurrent requests")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument(
        "--output", type=Path, help=f"folder of the figures, {OUTPUT}; an interrupted run resumes from it"
    )
    parser.add_argument(
        "--exact-model", type=Path, help="small real model for the test of exactness; default: examples/tiny-model"
    )
    parser.add_argument("--fresh", action="store_true", help="delete existing figures")
    parser.add_argument("--quick", action="store_true", help="two batches, without vLLM's own ways")
    parser.add_argument("--json", type=Path, help="file for the result, as JSON")
    given = parser.parse_args()
    if given.json and not given.json.parent.is_dir():
        parser.error(f"--json: {given.json.parent} is no folder")
    if given.quick:
        # In a folder of its own: engines for other batches are other engines.
        given.batches, given.ways = "1,8", "stock,drafts"
        given.output = given.output or OUTPUT.with_name("bench-gpu-quick")
    stamp = Stamp()

    def say(result: str) -> None:
        if given.json:
            given.json.write_text(json.dumps(json.loads(result) | stamp.fields(), indent=1))
        else:
            print(result)

    try:
        options = BenchOptions(
            minutes=given.minutes,
            model=given.model,
            shape=given.shape,
            batches=numbers(given.batches),
            ways=listed(given.ways),
            output=given.output or OUTPUT,
            exact_model=given.exact_model,
            as_json=given.json is not None,
            fresh=given.fresh,
            command=command_of("python benchmarks/gpu.py", sys.argv[1:]),
        )
        return run(options, say, lambda line: print(line, flush=True))
    except OpenseerError as error:
        print(f"{error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())

"""The process that receives weights: a member of the sender's process group that writes tensors to files.

It is separate from the engine: if the sender is lost during a transfer, a collective call waits for ever, but only in
this process, which then ends. Commands are lines of JSON on standard input, {NAME: ARGUMENTS}. The answer to each is a
line on standard output: an object with the result, or {"error": …}. After the loss of the sender the last line is an
error.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from openseer_core.errors import LoadError
from openseer_process.parent import die_with_parent
from openseer_worker.vllm.receiving import gloo
from openseer_worker.weights.hashing import digest
from openseer_worker.weights.received_files import ReceivedFiles, tensors_of

LOOK_SECONDS = 2.0
"""Interval of checks for the sender, in seconds."""
_REASON_CHARS = 500


class Receiving:
    """One sender's process group, and the files of the present round. Its methods are the commands."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._files: ReceivedFiles | None = None

    def join(self, backend: str, init: dict[str, Any]) -> dict[str, Any]:
        """Joins the sender's group; returns once the group is complete."""
        gloo.register()
        device = torch.device("cuda:0" if backend == "nccl" else "cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        alone = SimpleNamespace(rank=0, world_size=1, data_parallel_index=0)
        config: Any = SimpleNamespace(parallel_config=alone, model_config=None)
        named: Any = SimpleNamespace(backend=backend)
        model: Any = SimpleNamespace(load_weights=self._take)
        self._engine = WeightTransferEngineFactory.create_engine(named, config, device, model)
        self._engine.init_transfer_engine(self._engine.parse_init_info(init))
        return {}

    def await_end_of_sender(self) -> str:
        """Blocks until the sender (rank 0), which serves the group's store, has ended; returns an error message.

        Never returns if the group has no store, as a group that was created only from an identifier.
        """
        group = getattr(self._engine, "model_update_group", None)
        store: Any = getattr(self._engine, "store", None) or getattr(getattr(group, "group", None), "store", None)
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                if store is not None:
                    store.check(["sender"])
            except RuntimeError:
                return "the sender is lost: its connection has ended"

    def begin(self, folder: str) -> dict[str, Any]:
        """Begins a round, whose files are written to `folder`."""
        if self._files is not None:
            self._files.close()
        self._files = ReceivedFiles(Path(folder))
        return {}

    def update(self, info: dict[str, Any]) -> dict[str, Any]:
        """Receives the tensors that the sender announces in `info`."""
        assert self._files is not None
        update = self._engine.parse_update_info(info)
        self._files.expect(tensors_of(update.names, update.dtype_names, update.shapes))
        self._engine.receive_weights(update)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._files.end_update()
        return {}

    def finish(self) -> dict[str, Any]:
        """Completes the files; returns their digest."""
        assert self._files is not None
        folder = self._files.finish()
        self._files = None
        return {"digest": digest(folder)}

    def _take(self, tensors: Iterable[tuple[str, Any]]) -> None:
        """Writes the tensors to the files; replaces a model's load_weights."""
        assert self._files is not None
        for name, tensor in tensors:
            # Torch has no buffer protocol for bfloat16, so the tensor is passed as bytes.
            self._files.add(name, memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))


def _answer(command: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return command(**arguments)
    except (LoadError, OSError) as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - a sender may cause any error
        return {"error": f"{type(error).__name__}: {error}"[:_REASON_CHARS]}


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # libraries print to standard output, which must contain only answers
    receiving = Receiving()

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")

    def end_with_sender() -> None:
        send({"error": receiving.await_end_of_sender()})
        os._exit(1)

    for line in sys.stdin.buffer:
        ((name, arguments),) = json.loads(line).items()
        send(answer := _answer(getattr(receiving, name), arguments))
        if name == "join" and not answer:
            threading.Thread(target=end_with_sender, daemon=True).start()


if __name__ == "__main__":
    main()

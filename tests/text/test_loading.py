"""Tokenizers of several jobs, loaded at once in one process."""

import subprocess
import sys

from tests.repository import ROOT

PROGRAM = """
import threading
from openseer_core.manifest.job import Model
from openseer_text.model_files import load_tokenizer

model, together, failed = Model.model_validate({"path": "examples/tiny-model/model"}), threading.Barrier(8), []

def load():
    together.wait()
    try:
        load_tokenizer(model)
    except BaseException as error:
        failed.append(repr(error))

threads = [threading.Thread(target=load) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed[0]
"""


def test_threads_of_a_new_process_may_load_tokenizers_at_once() -> None:
    """Runs in a new process: the order of imports matters only before transformers is imported."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

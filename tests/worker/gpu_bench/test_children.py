"""The bench's imports, its orders, and the ends of its processes."""

# pyright: reportPrivateUsage=false

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from openseer_core.errors import EngineError, OutputError
from openseer_worker.gpu_bench import children as children_module
from openseer_worker.gpu_bench.children import LOG, Children
from openseer_worker.gpu_bench.plan import STOCK, parts_of
from openseer_worker.gpu_bench.shapes import CPU
from openseer_worker.gpu_bench.ways import Order

ELSEWHERE = (
    "openseer_local", "openseer_store", "openseer_text", "openseer_process", "openseer_driver", "openseer_api",
    "openseer_operator", "typer", "rich", "kopf", "redis", "matplotlib", "jinja2", "yaml",
)  # fmt: skip


def test_the_bench_imports_only_core_draft_and_worker_of_openseer() -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({ELSEWHERE!r}))
import openseer_worker.gpu_bench.main, openseer_worker.gpu_bench.forks, openseer_worker.gpu_bench.measure
assert "vllm" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def order(folder: Path) -> Order:
    return Order(
        way=STOCK, parts=tuple(parts_of(STOCK, (2,))), folder=str(folder), model=str(folder), dummy=True, exact=False,
        most=2, scale=CPU, tier="compiled as vLLM chooses", seconds=60.0, on_cpu=True,
    )  # fmt: skip


def test_an_order_survives_a_pipe(tmp_path: Path) -> None:
    assert Order.from_json(order(tmp_path).to_json()) == order(tmp_path)


PLAYED = """
import json, os, sys, time

def say(**fields):
    print(json.dumps(fields), flush=True)

behaviour = {behaviour!r}
if behaviour == "no vLLM":
    sys.exit("ModuleNotFoundError: No module named 'vllm'")
if behaviour == "slow":
    time.sleep(60)
say(warm=1.0)
for line in sys.stdin:
    if behaviour == "silent":
        time.sleep(60)
    pid = os.fork()
    if not pid:
        os.setsid()
        own = os.fork()
        if own:
            open({found!r} + ".new", "w").write(str(own))
            os.rename({found!r} + ".new", {found!r})
        if not own or behaviour in ("hangs", "forks die"):
            time.sleep(60)
        os._exit(0)
    say(started=pid)
    if behaviour == "forks die":
        while not os.path.exists({found!r}):
            time.sleep(0.01)
        os._exit(9)
    os.waitpid(pid, 0)
    say(ended=0, cpu_seconds=0.5)
"""
"""A process that starts engines, without engines: each child has a process of its own, whose id goes into a file."""


Played = Callable[[str], Path]


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    """Makes `Children` start a process with the given behaviour; returns the file for the id of the child's own
    process."""
    python = sys.executable
    found = tmp_path / "own-process"

    def play(behaviour: str) -> Path:
        (tmp_path / "played.py").write_text(PLAYED.format(behaviour=behaviour, found=str(found)))
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\nexec {python} -S -E {tmp_path}/played.py\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return found

    return play


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def own_process(found: Path) -> int:
    until(found.exists)
    return int(found.read_text())


def gone(pid: int) -> bool:
    """Whether a process has ended; it may still be a zombie of its new parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_reason_is_shown_when_no_engine_can_start(tmp_path: Path, played: Played) -> None:
    played("no vLLM")
    with Children(tmp_path, tmp_path) as children, pytest.raises(EngineError, match=r"cannot be imported: .* 'vllm'"):
        children.warm_up()


def test_a_slow_import_is_reported_as_such(tmp_path: Path, played: Played) -> None:
    played("slow")
    with Children(tmp_path, tmp_path) as children, pytest.raises(EngineError, match="not imported within 0 s"):
        children.warm_up(0.3)


def test_a_successful_child_leaves_no_process(tmp_path: Path, played: Played) -> None:
    found = played("well")
    with Children(tmp_path, tmp_path) as children:
        children.warm_up()
        assert children.run(order(tmp_path), 120.0, lambda: None) == ""
        until(lambda: gone(own_process(found)))
        assert children.cpu_seconds == 0.5


def test_ctrl_c_ends_the_processes_of_the_child(tmp_path: Path, played: Played) -> None:
    found = played("hangs")

    def interrupt() -> None:
        if found.exists():
            raise KeyboardInterrupt

    with Children(tmp_path, tmp_path) as children:
        children.warm_up()
        with pytest.raises(KeyboardInterrupt):
            children.run(order(tmp_path), 120.0, interrupt)
    until(lambda: gone(own_process(found)))


def test_a_hanging_child_is_killed_and_the_next_one_runs(
    tmp_path: Path, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = played("hangs")
    with Children(tmp_path, tmp_path) as children:
        children.warm_up()

        def clock() -> float:
            return 2.0 if children._child and found.exists() else 0.0  # the time limit passes while the child hangs

        monkeypatch.setattr(children_module, "time", SimpleNamespace(monotonic=clock))
        assert children.run(order(tmp_path), 1.0, lambda: None) == "ended by the bench after 1 s"
        until(lambda: gone(own_process(found)))
        assert children.warm


def test_a_process_without_children_is_killed_itself(tmp_path: Path, played: Played) -> None:
    played("silent")
    with Children(tmp_path, tmp_path) as children:
        children.warm_up()
        assert children.run(order(tmp_path), 0.3, lambda: None) == "no process was started within 0 s"
        assert not children.warm


def test_a_killed_process_is_replaced(tmp_path: Path, played: Played) -> None:
    found = played("forks die")
    with Children(tmp_path, tmp_path) as children:
        children.warm_up()
        assert "starts engines has ended: failed with exit code 9" in children.run(order(tmp_path), 120.0, lambda: None)
        until(lambda: gone(own_process(found)))
        played("well")
        assert children.warm_up() == 1.0
        assert children.run(order(tmp_path), 120.0, lambda: None) == ""


def test_an_unwritable_log_is_reported_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / LOG).mkdir()
    with Children(tmp_path, tmp_path) as children, pytest.raises(OutputError, match=str(tmp_path)):
        children.warm_up()

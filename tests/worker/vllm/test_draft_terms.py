"""Without gain from drafts the engine is built without them; with gain, memory for log-probabilities bounds their
length."""

import asyncio
import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from openseer_core.manifest.job import Logprobs, Model, Parallelism, Sampling, Speculation
from openseer_core.queue.states import FinishReason
from openseer_core.tokens import pack_tokens
from openseer_draft.drafter import Drafter
from openseer_worker.engine import DraftTokens
from openseer_worker.vllm.drafting import proposer, step_profile
from openseer_worker.vllm.drafting.no_gain import VALID_SECONDS, NoGainRecord, facts_of
from openseer_worker.vllm.drafting.proposer import PADDED_BYTES, longest_draft
from openseer_worker.vllm.engine import VllmEngine
from openseer_worker.vllm.environment import is_cpu_build
from tests.worker.drafting import NAMES, ROOM, drafting_player, feed, of
from tests.worker.player import GREEDY, Player, model

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]
REASON = "even drafts that are all accepted would make this engine only "


@contextmanager
def engine_of(folder: Path, no_gain: Path) -> Generator[VllmEngine]:
    speculation = Speculation(max_tokens=6, memory_megabytes=64)
    engine = VllmEngine(model(folder), cache_salt="terms", speculation=speculation, no_gain=no_gain)
    try:
        yield engine
    finally:
        asyncio.run(engine.close())


def test_an_engine_without_gain_from_drafts_is_built_without_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_profile, "WORTH_IT", 1e9)
    with engine_of(folder, tmp_path) as engine:
        assert not engine.drafts
        assert str(engine.metrics()["drafts"]).startswith(f"off: {REASON}")
        # An engine that was built for drafts refuses minP, whether it drafts or not.
        assert Player(engine).one(Sampling(min_p=0.1, ignore_eos=True), 4).finish is FinishReason.LENGTH
    (kept,) = tmp_path.glob("*.json")
    assert json.loads(kept.read_text())["device"] == "cpu"
    monkeypatch.setattr(step_profile, "PROFILE_SECONDS", -1e9)  # a second profile would find a gain from drafts
    with engine_of(folder, tmp_path) as engine:
        assert not engine.drafts
        assert f"found before; {kept}" in str(engine.metrics()["drafts"])


def test_a_drafter_error_is_not_recorded_as_a_lack_of_gain(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise MemoryError("cannot allocate just now")

    monkeypatch.setattr(Drafter, "set_importance", fault)
    with engine_of(folder, tmp_path) as engine:
        assert "the drafter failed: cannot allocate just now" in str(engine.metrics()["drafts"])
    assert list(tmp_path.iterdir()) == []


def test_log_probabilities_bound_the_drafts_of_a_full_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of eight requests: without memory beyond the measured one a draft has one token; a single request's has up
    to six."""
    monkeypatch.setattr(proposer, "PADDED_BYTES", 0)
    # Lengths by step times would also depend on the load of this machine.
    monkeypatch.setattr(proposer, "Drafter", partial(Drafter, adaptive=False))
    with drafting_player(folder) as player:
        whole = player.run(of(0, GREEDY))[0].tokens
        assert steps_of(player, whole, 1) < ROOM / 4
        assert ROOM / 2 <= steps_of(player, whole, 4) < ROOM * 3 / 4


def steps_of(player: Player, whole: list[int], requests: int) -> int:
    """The engine's number of steps for so many responses that are known already."""
    group = NAMES.new()
    feed(player, tokens=[DraftTokens(group, 9, 0, pack_tokens(whole))])
    before = int(player.engine.metrics()["steps"])
    for response in player.run(*(of(0, GREEDY, group=group, index=index) for index in range(requests))):
        assert response.tokens == whole
    return int(player.engine.metrics()["steps"]) - before


@pytest.mark.parametrize(
    ("rows", "longest"), [(1, 1138), (64, 16), (256, 3), (512, 1), (1139, 0), (4096, 0), (0, 1138)]
)
def test_the_longest_draft_fits_the_available_memory(rows: int, longest: int) -> None:
    profiled, vocabulary = 256, 151936
    found = longest_draft(rows, profiled, vocabulary)
    assert found == longest
    bound = profiled * vocabulary * 8 + PADDED_BYTES
    assert rows * (1 + found) * vocabulary * 8 <= bound or found == 0
    assert max(1, rows) * (2 + found) * vocabulary * 8 > bound - vocabulary * 8


def test_records_are_separate_and_broken_or_old_ones_are_ignored(tmp_path: Path, folder: Path) -> None:
    small, large = model(folder), model(folder, max_num_seqs=64)

    def record(of: Model = small, tensor: int = 1, logprobs: Logprobs = "sampled", most: int = 16) -> NoGainRecord:
        facts = facts_of(of, Parallelism(tensor=tensor), Sampling(logprobs=logprobs), Speculation(max_tokens=most))
        return NoGainRecord(tmp_path / "deep" / "folder", facts)

    assert record().read() == ""
    record().keep("no gain")
    assert record().read().startswith("no gain (found before; ")
    others = (record(of=large), record(tensor=2), record(logprobs="none"), record(most=1))
    assert [other.read() for other in others] == [""] * 4
    (kept,) = (tmp_path / "deep" / "folder").iterdir()
    old = time.time() - VALID_SECONDS - 60
    os.utime(kept, (old, old))
    assert record().read() == ""
    for broken in ("", "{", "[]", "[" * 100_000, '{"reason": 3}', '{"reason": ""}'):
        kept.write_text(broken)
        assert record().read() == ""


def test_an_unwritable_folder_keeps_no_record_without_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    record = NoGainRecord(tmp_path / "file" / "below", {"device": "H100"})
    record.keep("no gain")
    assert record.read() == ""

"""The batch's span of a resumed run."""

from collections.abc import Iterable
from pathlib import Path

from openseer_core.admission import ModelLimits
from openseer_core.ids import INITIAL_VERSION
from openseer_core.manifest.prompts import PromptLine
from openseer_core.traces.span import TraceSpan
from openseer_driver.driver import Driver
from openseer_driver.run_folder import ResultsWriter, RunFolder
from openseer_driver.submission import render_groups
from openseer_driver.traces.batch_trace import RunTraces
from openseer_store.memory import MemoryStore
from openseer_text.rendering import open_codec
from tests.driver.small_jobs import small_job
from tests.store.builders import ANN, Clock, finish, query, wait

JOB = small_job(probe=False)
PROMPTS = [PromptLine("g", 0, prompt_token_ids=(1, 2, 3))]


class Spans:
    """Keeps all spans that it receives."""

    def __init__(self) -> None:
        self.kept: list[TraceSpan] = []

    def give(self, spans: Iterable[TraceSpan]) -> None:
        self.kept += spans


async def run_session(store: MemoryStore, clock: Clock, folder: RunFolder) -> list[TraceSpan]:
    """Drives the job to its end; returns the session's spans."""
    spans, codec = Spans(), open_codec(JOB.spec.model)
    groups = list(render_groups(JOB, "prompts.jsonl", PROMPTS, codec, ModelLimits(), clock()))
    with ResultsWriter(folder) as writer:
        driver = Driver(store, groups, writer, codec, traces=RunTraces(JOB, spans, {}))
        await driver.submit()
        await wait(store, clock, 5.0)
        claims = await store.claim(ANN, query(version=INITIAL_VERSION))
        await store.complete(ANN, [finish(claim, 3) for claim in claims])
        await driver.collect()
    return spans.kept


async def test_a_resumed_run_without_new_results_has_a_whole_batch_span(tmp_path: Path) -> None:
    clock, folder = Clock(), RunFolder(tmp_path / "run")
    folder.create()
    store = MemoryStore(clock)
    first, second = [await run_session(store, clock, folder) for _ in range(2)]
    assert [span.name for span in first] == ["request", "request", "batch"]
    assert [span.name for span in second] == ["batch"]
    assert (first[-1].start, first[-1].end) == (1000.0, 1005.0)
    assert (second[-1].start, second[-1].end) == (1000.0, 1005.0)

"""A request's queue time is the time of its submission, not of its prompt's rendering."""

from pathlib import Path

from openseer_core.admission import ModelLimits
from openseer_core.ids import BATCH_JOB_BATCH, INITIAL_VERSION, WorkerId
from openseer_core.manifest.prompts import PromptLine
from openseer_core.queue.messages import Result
from openseer_core.queue.policy import policy_of
from openseer_driver.driver import Driver
from openseer_driver.run_folder import ResultsWriter, RunFolder
from openseer_driver.submission import render_groups
from openseer_store.memory import MemoryStore
from openseer_text.rendering import open_codec
from tests.driver.small_jobs import small_job
from tests.store.builders import finish, query

JOB = small_job(policy="context-aware", ageingTokensPerSecond=2.0)
PROMPTS = [PromptLine(f"g{number}", number, prompt_token_ids=(1, 2, 3)) for number in range(2)]


async def test_requests_are_queued_by_the_time_of_their_submission(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    store, codec, policy = MemoryStore(lambda: 143.0), open_codec(JOB.spec.model), policy_of(JOB.spec.rollout)
    groups = list(render_groups(JOB, "prompts.jsonl", PROMPTS, codec, ModelLimits(), 100.0))
    with ResultsWriter(folder) as writer:
        await Driver(store, groups, writer, codec, policy=policy).submit()
    claims = await store.claim(WorkerId("ann", "boot"), query(4, version=INITIAL_VERSION))
    assert {claim.view.enqueued_at for claim in claims} == {143.0}
    assert all(claim.priority == policy.priority(claim.view) for claim in claims)
    await store.complete(WorkerId("ann", "boot"), [finish(claim, 3) for claim in claims])
    entries = await store.results(BATCH_JOB_BATCH, 0, 10)
    assert {entry.enqueued_at for entry in entries if isinstance(entry, Result)} == {143.0}

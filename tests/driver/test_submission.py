"""From prompts to groups: what is kept of their responses."""

import pytest

from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.prompts import PromptLine
from openseer_core.queue.siblings import prompt_digest
from openseer_driver.submission import render_groups
from openseer_text.rendering import open_codec

PROMPTS = [PromptLine(f"g{number}", number, prompt_token_ids=(1, 2, number % 2)) for number in range(3)]


@pytest.mark.parametrize("kept", [0, 4])
def test_responses_are_kept_under_their_prompts_digest_where_the_job_asks_for_it(kept: int) -> None:
    job = parse_job(
        {
            "apiVersion": "openseer.dev/v1alpha1",
            "kind": "RolloutJob",
            "metadata": {"name": "drafts"},
            "spec": {
                "model": {"path": "none", "engine": "scripted"},
                "prompts": {"path": "prompts.jsonl"},
                "groupSize": 2,
                "sampling": {"maxTokens": 9},
                "speculation": {"earlierResponses": kept},
            },
        },
        "test",
    )
    groups = render_groups(job, "prompts.jsonl", PROMPTS, open_codec(job.spec.model), 0.0)
    assert [group.history_size for group in groups] == [kept] * 3
    assert [group.history for group in groups] == [prompt_digest(group.prompt) if kept else "" for group in groups]
    assert groups[0].history == groups[2].history

"""Hand-written lines of a run folder."""

import json
from typing import Any

GROUP_SIZE = 4
SPEC: dict[str, Any] = {
    "model": {"path": "none", "engine": "scripted"},
    "prompts": {"path": "p.jsonl"},
    "groupSize": GROUP_SIZE,
    "sampling": {"maxTokens": 100_000},
}
NULL = ("stop_reason", "prompt_template_hash", "logprobs", "logprobs_of", "text", "metadata")


def result_line(group: str = "g", index: int = 0, tokens: tuple[int, ...] = (1, 2), ended_at: float = 2.0) -> str:
    """A line of results.jsonl: a response that worker w began at second 1."""
    chunk = {"worker": "w#a", "fence": 1, "start": 0, "end": len(tokens), "claimed_at": 1.0, "ended_at": ended_at}
    line = dict.fromkeys(NULL) | {
        "batch": 0,
        "group": group,
        "index": index,
        "weights_version": "initial",
        "status": "ok",
        "finish_reason": "stop",
        "prompt_token_ids": [1],
        "token_ids": list(tokens),
        "chunks": [chunk | {"event": "complete"}],
        "workers": ["w"],
        "timings": {"enqueued_at": 1.0, "started_at": 1.0, "finished_at": ended_at, "seconds": 1.0},
        "cursor": 1,
    }
    return json.dumps(line) + "\n"

"""The path of the repository, for tests that read its files, and the limits of long searches."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
JOB_EXAMPLES = sorted(
    path for path in (ROOT / "examples").rglob("*.yaml") if "kind: RolloutJob" in path.read_text(encoding="utf-8")
)
"""Manifests of jobs; every other example names the test that runs it."""
CLUSTER_EXAMPLES = [path for path in JOB_EXAMPLES if path.parent.name != "routed-experts"]
"""The examples for a cluster. One example keeps routed experts in its own folder; a cluster needs a volume for them."""
SOAK = bool(os.environ.get("OPENSEER_SOAK"))
"""`make soak`: long searches run in full; otherwise in a short, seeded form."""
SEED = int(os.environ.get("OPENSEER_SOAK_SEED") or 1)
MINUTES = float(os.environ.get("OPENSEER_SOAK_MINUTES") or 10)
"""`make soak SEED=… MINUTES=…`: the first seed of random faults, and the minutes of their runs."""

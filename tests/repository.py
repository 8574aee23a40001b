"""Where the repository is, for tests that read its files, and how long searches may take."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
JOB_EXAMPLES = sorted(
    path for path in (ROOT / "examples").rglob("*.yaml") if "kind: RolloutJob" in path.read_text(encoding="utf-8")
)
"""Manifests of jobs; what else is an example says itself which test runs it."""
CLUSTER_EXAMPLES = [path for path in JOB_EXAMPLES if path.parent.name != "routed-experts"]
"""Those that a cluster takes: one keeps routed experts in its own folder, and in a cluster they need a volume."""
SOAK = bool(os.environ.get("OPENSEER_SOAK"))
"""`make soak`: long searches run in full; otherwise in a short, seeded form."""
SEED = int(os.environ.get("OPENSEER_SOAK_SEED") or 1)
MINUTES = float(os.environ.get("OPENSEER_SOAK_MINUTES") or 10)
"""`make soak SEED=… MINUTES=…`: the first seed of random faults, and how long they are played."""

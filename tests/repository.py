"""Where the repository is, for tests that read its files, and how long searches may take."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOAK = bool(os.environ.get("OPENSEER_SOAK"))
"""`make soak`: long searches run in full; otherwise in a short, seeded form."""

"""Playwright's `expect`; tests that import it are skipped where Playwright is missing."""

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

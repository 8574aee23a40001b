"""Runs tests that mostly wait concurrently; each keeps its own name and its own result.

A story is a function of (kube, namespace). `@story` makes a test of it that reports the story's result; the first such
test starts all selected stories, SIDE_BY_SIDE at a time, each in a separate namespace. Stories must not change nodes.
"""

import uuid
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.cluster.support.kube import Kube, wait_until

SIDE_BY_SIDE = 4
"""Limit of concurrent stories: two cores are enough for about this many jobs that mostly wait."""
STORY_SECONDS = 1500.0
"""Timeout of a story, in seconds, including its wait for a free place."""

Story = Callable[[Kube, str], None]
Test = Callable[["Stage"], None]


@contextmanager
def restricted_namespace(kube: Kube) -> Generator[str]:
    """A namespace at the restricted Pod Security level, deleted at the end of the context."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}])
    try:
        # Pods are refused until a controller has created their ServiceAccount.
        wait_until(lambda: kube.ask("get", "serviceaccount", "default", "-n", name).returncode == 0, "its account")
        yield name
    finally:
        kube.kubectl("delete", "namespace", name, "--wait=false")


class Stage:
    """Runs the selected stories in a thread pool."""

    def __init__(self, kube: Kube, stories: list[Story]) -> None:
        self._kube = kube
        self._pool = ThreadPoolExecutor(SIDE_BY_SIDE)
        self._ends: dict[str, Future[None]] = {
            story.__name__: self._pool.submit(self._play, story) for story in stories
        }

    def _play(self, story: Story) -> None:
        with restricted_namespace(self._kube) as namespace:
            story(self._kube, namespace)

    def end_of(self, name: str) -> None:
        """Waits for a story's end and raises its error, if any."""
        self._ends[name].result(STORY_SECONDS)

    def close(self) -> None:
        """Cancels the stories that have not begun, and waits for the others."""
        self._pool.shutdown(cancel_futures=True)


def story(play: Story) -> Test:
    """Makes a test that runs `play` concurrently with the other stories."""

    def test(stage: Stage) -> None:
        stage.end_of(play.__name__)

    test.__name__, test.__doc__ = play.__name__, play.__doc__
    STORIES[play.__name__] = play
    return pytest.mark.timeout(STORY_SECONDS, func_only=True)(test)


STORIES: dict[str, Story] = {}
"""All stories by name."""


def chosen(items: list[pytest.Item]) -> list[Story]:
    """The stories among the tests of this session, in their order."""
    return [STORIES[name] for item in items if (name := getattr(item, "originalname", item.name)) in STORIES]

"""One session of a run: a checked job, and the run's folder, which is locked during the session."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any

from openseer_core.admission import ModelLimits
from openseer_core.errors import DriverFencedError, InputError, ManifestError, OutputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import (
    changed_fields,
    changed_results,
    manifest_content,
    manifest_hash,
    parse_ended_job,
    settings_of,
)
from openseer_core.queue.policy import Policy, policy_of
from openseer_driver import VERSION
from openseer_driver.run_folder import ResultsWriter, RunFolder
from openseer_driver.run_lines import RunRecord, RunState, Session
from openseer_driver.spool import GroupSpool
from openseer_driver.submission import CheckedPrompts, Note, read_groups
from openseer_text.rendering import TextCodec, open_codec

PIECE = 512
"""Prompts rendered between two checks for cancellation."""

_CONTENT = "prompts.sha256"
_PLACES = tuple(f"spec.prompts.{name}" for name in ("path", "url", "pvc", "configMap"))


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A job that passed all checks that are possible before the start.

    `document`: the manifest as submitted. `fresh`: files of an earlier run in the folder are deleted.
    """

    job: RolloutJob
    document: dict[str, Any]
    folder: RunFolder
    prompts: CheckedPrompts
    fresh: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """The fields that determine the run's results: stored in run.json, compared on a resume."""
        return {**manifest_content(self.job), "prompts": {"sha256": self.prompts.sha256}}

    @property
    def is_complete(self) -> bool:
        """Whether the folder has this run with all its results, so that a session has nothing to do."""
        if self.fresh or not self.folder.exists() or self.folder.read_run().state != "complete":
            return False
        return sum(1 for _ in self.folder.facts()) == self.prompts.count * self.job.spec.group_size

    @property
    def policy(self) -> Policy:
        """The policy that orders groups in the queue."""
        return policy_of(self.job.spec.rollout)

    def check_resumable(self, advice: str) -> None:
        """Raises InputError, with `advice`, if the folder has a run of another manifest."""
        if self.fresh or not self.folder.exists():
            return
        changed = [
            name
            for name in changed_results(self.folder.read_run().manifest, self.record)
            if not name.startswith(_PLACES)  # the same prompts may have been moved
        ]
        if _CONTENT in changed:
            advice = f"{self.prompts.source.name} has changed since the run began; restore it. {advice}"
        if changed:
            raise InputError(
                f"{self.folder.path}: holds a run of another manifest; changed: {', '.join(changed)}. {advice}"
            )

    @asynccontextmanager
    async def prepared(
        self, limits: Callable[[], Awaitable[ModelLimits]], now: float, note: Note, warn: Callable[[str], None]
    ) -> AsyncGenerator[tuple[TextCodec, GroupSpool]]:
        """The codec, and all groups to submit, rendered in threads.

        `limits`: called once the tokenizer is loaded. `now`: seconds of the store's clock. `note`: called with the
        progress. `warn`: as in open_codec; called in a thread.
        Raises InputError, PromptsError (which lists the wrong prompts), ModelError, OutputError.
        """
        codec = await asyncio.to_thread(open_codec, self.job.spec.model, warn)
        groups = read_groups(self.job, self.prompts, codec, await limits(), now)
        with GroupSpool(self.folder.path) as spool:
            while await asyncio.to_thread(lambda: spool.add(islice(groups, PIECE))):
                note(f"{spool.groups:,} of {self.prompts.count:,} prompts")
            yield codec, spool


def settings_note(folder: RunFolder, job: RolloutJob) -> str:
    """A note on settings that differ from the folder's earlier session and do not affect results; "" if there are none.

    Call it before the session begins, because the session replaces job.json in the folder.
    """
    try:
        earlier = parse_ended_job(json.loads(folder.job_file.read_bytes()), str(folder.job_file))
    except (OSError, ValueError, ManifestError):
        return ""  # no earlier session, or one of another release
    changed = changed_fields(settings_of(earlier), settings_of(job))
    return f"resuming with other settings, which do not change results: {', '.join(changed)}" if changed else ""


class SessionClock:
    """Clock of a session: the unix time of its start plus the monotonic seconds since then. Setting the wall clock does
    not change durations, and the time in which the machine is suspended does not count."""

    def __init__(self) -> None:
        self.began = time.time()
        self._since = time.monotonic()

    def __call__(self) -> float:
        """The present time, in seconds."""
        return self.began + time.monotonic() - self._since


class OpenRun:
    """`with OpenRun(plan) as run`: locks the folder, opens its results, and writes the state "running" to run.json.

    At the end it writes `state`, or the session's error, to run.json. A session whose driver was replaced does not do
    that, because the folder then belongs to the new driver. Raises FolderHeldError while another session has the
    folder, else OutputError.
    """

    writer: ResultsWriter

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.state: RunState = "stopped"
        self._earlier: list[Session] = []
        self.clock = SessionClock()

    @property
    def resumed(self) -> bool:
        """Whether an earlier session began this run."""
        return bool(self._earlier)

    def __enter__(self) -> "OpenRun":
        folder = self.plan.folder
        folder.create()
        self.writer = ResultsWriter(folder, fresh=self.plan.fresh)
        try:
            self._earlier = folder.read_run().sessions if folder.exists() else []
            folder.write_whole(folder.job_file, json.dumps(self.plan.document).encode())
            self._note("running")
        except BaseException:
            self.writer.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._note(self.state, ended=self.clock())
            elif isinstance(error, asyncio.CancelledError):
                self._note("stopped", ended=self.clock())
            elif not isinstance(error, DriverFencedError):
                with suppress(OutputError):  # the session's error, which is raised, may be the same full disk
                    self._note("failed", str(error), ended=self.clock())
        finally:
            self.writer.close()

    def _note(self, state: RunState, reason: str = "", ended: float | None = None) -> None:
        job = self.plan.job
        sessions = [*self._earlier, Session(self.clock.began, ended, job.spec.workers.replicas)]
        self.plan.folder.write_run(
            RunRecord(job.name, manifest_hash(job), self.plan.record, VERSION, state, reason, sessions)
        )

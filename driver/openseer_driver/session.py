"""One session of a run: a job that passed its checks, and the run's folder, held while the session goes on."""

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
from openseer_core.manifest.parse import changed_fields, manifest_content, manifest_hash, parse_ended_job, settings_of
from openseer_core.queue.policy import Policy, policy_of
from openseer_driver import VERSION
from openseer_driver.run_folder import ResultsWriter, RunFolder
from openseer_driver.run_lines import RunRecord, RunState, Session
from openseer_driver.spool import GroupSpool
from openseer_driver.submission import CheckedPrompts, Note, read_groups
from openseer_text.rendering import TextCodec, open_codec

PIECE = 512
"""Prompts rendered between two looks at whether to stop."""

_CONTENT = "prompts.sha256"
_PLACES = tuple(f"spec.prompts.{name}" for name in ("path", "url", "pvc", "configMap"))


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A job that passed every check that can be made before anything starts.

    `document`: the manifest as it was given. `fresh`: what an earlier run left in the folder is deleted.
    """

    job: RolloutJob
    document: dict[str, Any]
    folder: RunFolder
    prompts: CheckedPrompts
    fresh: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """What determines the run's results: kept in run.json, compared on a resume."""
        return {**manifest_content(self.job), "prompts": {"sha256": self.prompts.sha256}}

    @property
    def is_complete(self) -> bool:
        """Whether the folder holds this run with all its results, so that a session would have nothing to do."""
        if self.fresh or not self.folder.exists() or self.folder.read_run().state != "complete":
            return False
        return sum(1 for _ in self.folder.facts()) == self.prompts.count * self.job.spec.group_size

    @property
    def policy(self) -> Policy:
        """Says where groups stand in the queue."""
        return policy_of(self.job.spec.rollout)

    def check_resumable(self, advice: str) -> None:
        """Raises InputError when the folder holds a run of another manifest; `advice` says what to do then."""
        if self.fresh or not self.folder.exists():
            return
        changed = [
            name
            for name in changed_fields(self.folder.read_run().manifest, self.record)
            if not name.startswith(_PLACES)  # the same prompts may lie elsewhere by now
        ]
        if _CONTENT in changed:
            advice = f"{self.prompts.source.name} holds other bytes than when the run began; put them back. {advice}"
        if changed:
            raise InputError(
                f"{self.folder.path}: holds a run of another manifest; changed: {', '.join(changed)}. {advice}"
            )

    @asynccontextmanager
    async def prepared(
        self, limits: Callable[[], Awaitable[ModelLimits]], now: float, note: Note, say: Callable[[str], None]
    ) -> AsyncGenerator[tuple[TextCodec, GroupSpool]]:
        """The codec, and all groups to submit, rendered in threads.

        `limits`: asked once the tokenizer is there. `now`: seconds of the store's clock. `note` is told how far.
        `say`: see open_codec, called in a thread.
        Raises InputError, PromptsError with what is wrong with any prompt, ModelError, OutputError.
        """
        codec = await asyncio.to_thread(open_codec, self.job.spec.model, say)
        groups = read_groups(self.job, self.prompts, codec, await limits(), now)
        with GroupSpool(self.folder.path) as spool:
            while await asyncio.to_thread(lambda: spool.add(islice(groups, PIECE))):
                note(f"{spool.groups:,} of {self.prompts.count:,} prompts")
            yield codec, spool


def settings_note(folder: RunFolder, job: RolloutJob) -> str:
    """Which of the settings that change no results differ from the folder's earlier session, "" for none.

    To be asked before the session begins, which writes its own manifest to the folder.
    """
    try:
        earlier = parse_ended_job(json.loads(folder.job_file.read_bytes()), str(folder.job_file))
    except (OSError, ValueError, ManifestError):
        return ""  # there was none, or of another release
    changed = changed_fields(settings_of(earlier), settings_of(job))
    return f"going on with other settings, which change no results: {', '.join(changed)}" if changed else ""


class SessionClock:
    """Unix seconds when the session began, and the seconds since: a wall clock may be set meanwhile, and seconds in
    which the machine slept are none."""

    def __init__(self) -> None:
        self.began = time.time()
        self._since = time.monotonic()

    def __call__(self) -> float:
        """Now."""
        return self.began + time.monotonic() - self._since


class OpenRun:
    """`with OpenRun(plan) as run`: the folder is this session's, its results are open, run.json says that it runs.

    At the end run.json gets `state`, or why the session failed. A session whose driver was replaced writes nothing
    more: the folder belongs to the new driver. Raises FolderHeldError while another session has the folder, else
    OutputError.
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
                with suppress(OutputError):  # a full disk may be why the session fails: that reason is told
                    self._note("failed", str(error), ended=self.clock())
        finally:
            self.writer.close()

    def _note(self, state: RunState, reason: str = "", ended: float | None = None) -> None:
        job = self.plan.job
        sessions = [*self._earlier, Session(self.clock.began, ended, job.spec.workers.replicas)]
        self.plan.folder.write_run(
            RunRecord(job.name, manifest_hash(job), self.plan.record, VERSION, state, reason, sessions)
        )

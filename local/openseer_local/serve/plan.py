"""Checks before a serving job starts: mode serve, a free address, a token, a folder without another job."""

import errno
import ipaddress
import os
import secrets
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from openseer_core.errors import InputError, OutputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import changed_results, manifest_content, manifest_hash
from openseer_driver import VERSION
from openseer_driver.folder_lock import held
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import RunRecord, RunState, Session
from openseer_local.bearer import read_token
from openseer_local.job_checks import check_local_job

LOCK_FILE = "lock"
TOKEN_FILE = "token"
TOKEN_BYTES = 32
"""Number of random bytes of a generated token."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address on which the API listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect to it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def bind(self) -> socket.socket:
        """Returns a socket bound to the address; port 0: any free port. Raises InputError."""
        try:
            family, kind, number, _, socket_address = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
        except socket.gaierror as error:
            raise InputError(f"--host: found {self.host}, which is not an address: {error.strerror}") from error
        bound = socket.socket(family, kind, number)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(socket_address)
        except OSError as error:
            bound.close()
            raise InputError(_why_not(self, error)) from error
        return bound


def _why_not(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port: {address.port} is in use on {address.host}; choose another one, or 0 for any free one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host: found {address.host}, which is not an address of this machine"
    return f"cannot listen on {address.host}:{address.port}: {error.strerror}"


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """A serving job with its settings; `check` makes all checks that are possible before the start.

    `document`: the manifest as submitted. `given_token`: the token of the command line, "" generates one. `fresh`:
    files in the folder are deleted. `trusted`: the address of a machine whose calls need no token, "" for none.
    """

    job: RolloutJob
    document: dict[str, Any]
    folder: RunFolder
    address: Address
    given_token: str = ""
    fresh: bool = False
    trusted: str = ""

    @property
    def token_file(self) -> Path:
        """The absolute path of the file of a generated token, for clients in any working directory."""
        return (self.folder.path / TOKEN_FILE).absolute()

    def check(self) -> None:
        """Raises InputError if the job cannot be served with these settings."""
        check_local_job(self.job, "serve")
        if not self.address.is_loopback and not self.given_token:
            raise InputError(
                f"--host: found {self.address.host}, which other machines can reach; give --token-file with a token, "
                "or serve on 127.0.0.1"
            )
        if self.trusted:
            self._check_trusted()
        self._check_folder()

    def _check_trusted(self) -> None:
        try:
            if not ipaddress.ip_address(self.trusted).is_unspecified:
                return
        except ValueError:
            pass
        raise InputError(
            f"--no-token-from: found {self.trusted}, allowed: the address of one machine, such as 10.0.0.7"
        )

    def _check_folder(self) -> None:
        folder = self.folder
        if self.fresh or not folder.exists():
            return
        changed = changed_results(folder.read_run().manifest, manifest_content(self.job))
        if changed:
            raise InputError(
                f"{folder.path}: was served from another manifest; changed: {', '.join(changed)}. "
                "Use --fresh to start over, or --output for another folder"
            )
        if not folder.store_folder.is_dir() and self.job.spec.store.url is None:
            raise InputError(
                f"{folder.path}: its folder store/, which holds the batches, is missing; use --fresh to start over"
            )

    @contextmanager
    def open_folder(self) -> Generator[str]:
        """Creates and locks the folder for this session; yields the token. Raises OutputError, InputError."""
        folder = self.folder
        folder.create()
        lock_file = folder.path / LOCK_FILE
        with held(lock_file):
            if self.fresh:
                folder.clear(lock_file)
            folder.create(folder.logs_folder)
            folder.write_whole(folder.job_file, msgspec.json.encode(self.document))
            yield self.given_token or _own_token(self.token_file)


def _own_token(path: Path) -> str:
    """Returns the token of an earlier session, so that trainers can keep theirs, or writes a new one with mode 0600."""
    if path.exists():
        return read_token(path, str(path))
    token = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - by its mode
            file.write(token + "\n")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return token


class ServingRecord:
    """Writes run.json of a served folder: the manifest's fields that determine results, and the sessions."""

    def __init__(self, plan: ServingPlan) -> None:
        self._plan = plan
        self._earlier = plan.folder.read_run().sessions if plan.folder.exists() else []
        self._started_at = time.time()

    @property
    def resumed(self) -> bool:
        """Whether there was an earlier session."""
        return bool(self._earlier)

    def note(self, state: RunState, reason: str = "", *, ended: bool = False) -> None:
        """Writes the file. Raises OutputError."""
        job = self._plan.job
        now = time.time() if ended else None
        sessions = [*self._earlier, Session(self._started_at, now, job.spec.workers.replicas)]
        self._plan.folder.write_run(
            RunRecord(job.name, manifest_hash(job), manifest_content(job), VERSION, state, reason, sessions)
        )

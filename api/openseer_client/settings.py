"""Reads the API's address and the caller's token from arguments, else from the environment."""

import os
import ssl
from pathlib import Path

from openseer_core.errors import InputError
from openseer_core.wording import unreadable

URL = "OPENSEER_URL"
TOKEN = "OPENSEER_TOKEN"
TOKEN_FILE = "OPENSEER_TOKEN_FILE"


def base_url(given: str | None) -> str:
    """Returns the address of the API, or of a job behind a cluster's gateway, without a slash at its end. `given`:
    None: from OPENSEER_URL. Raises InputError without a valid address."""
    url = (given or os.environ.get(URL) or "").rstrip("/")
    if not url.startswith(("http://", "https://")):
        found = f"found {url!r}" if url else "none was given"
        raise InputError(
            f"address of the API: {found}; needed: url= or {URL}, such as http://127.0.0.1:8000, or "
            "http://gateway:8000/jobs/NAMESPACE/NAME in a cluster"
        )
    return url


def trusted(url: str) -> ssl.SSLContext | bool:
    """Returns httpx's argument `verify`: True (its root certificates) or, for an http URL, a context without roots.

    To load the roots takes 50 ms to 200 ms of CPU time. An http URL needs none, because the client follows no redirect
    to https.
    """
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if url.startswith("http://") else True


class Credentials:
    """The bearer token. A token file is read again after each change, because Kubernetes rotates a pod's tokens."""

    def __init__(self, token: str | None = None, token_file: str | Path | None = None) -> None:
        if token is None and token_file is None:
            token, token_file = os.environ.get(TOKEN), os.environ.get(TOKEN_FILE)
        self._token = token.strip() if token else ""
        self._file = Path(token_file) if token_file and not self._token else None
        self._seen: tuple[int, int, int] | None = None

    @property
    def rotates(self) -> bool:
        """Whether a refused token may be replaced by a newer one."""
        return self._file is not None

    def headers(self, *, again: bool = False) -> dict[str, str]:
        """Returns the headers to send. `again`: the token was refused, so the file is read even if it seems unchanged.

        Raises InputError if the file cannot be read.
        """
        if self._file is not None:
            self._refresh(self._file, again=again)
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _refresh(self, file: Path, *, again: bool) -> None:
        try:
            now = file.stat()
            seen = (now.st_mtime_ns, now.st_ino, now.st_size)
            if again or seen != self._seen:
                self._token = file.read_text(encoding="utf-8").strip()
                self._seen = seen
        except OSError as error:
            raise InputError(
                f"token file {file} {unreadable(error, Path.cwd)}; "
                f"name it in --token-file, token_file or {TOKEN_FILE}; "
                "`openseer serve` writes runs/NAME/token"
            ) from error

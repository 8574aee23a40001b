"""Writes the log of a process: lines of text, or JSON objects with the line's job, batch, worker, request and trace.

HIDDEN replaces secrets.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

log = logging.getLogger("openseer")

FORM = "OPENSEER_LOG"
"""Environment variable: the format of all logs; `text` by default."""
FORMS = ("text", "json")
FIELDS = ("job", "batch", "worker", "request", "trace_id")
"""Context fields of a JSON line. `job`: NAMESPACE/NAME; `request`: BATCH/GROUP/INDEX; `trace_id`: of a traceparent."""

HIDDEN = "[hidden]"
LEAST_SECRET = 8
"""Least length, in characters, of a secret variable's value that is hidden: a shorter value may be a common word."""

_SECRET_NAMES = re.compile(r"(TOKEN|PASSWORD|SECRET|API_KEY|ACCESS_KEY)$")
_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_SECRETS = re.compile(
    r"(?P<before>\w://)[^\s/@'\"]+(?=@)"  # user and password in a URL
    r"|(?P<scheme>\b(?:Bearer|Basic) )[\w.~+/=-]{8,}"
    r"|(?P<field>[?&][\w-]*(?:sig|signature|token|credential|password|secret|key)=)[^&\s'\"]+",
    re.IGNORECASE,
)
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ERROR = "error: "
_INDENT = "    "

_process: dict[str, str] = {}
_about: ContextVar[Mapping[str, str] | None] = ContextVar("about", default=None)


def start_log(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> None:
    """Configures logging to standard error, which the runner or the pod stores, or to the end of `file`."""
    form = environment.get(FORM) or "text"
    handler = logging.StreamHandler(sys.stderr) if file is None else logging.FileHandler(file, encoding="utf-8")
    secrets = secrets_of(environment)
    handler.setFormatter(JsonLines(secrets) if form == "json" else TextLines(secrets))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # httpx logs every request's whole URL, passwords and signatures included.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if form not in FORMS:
        log.warning("%s: found %r, allowed: %s; text is written", FORM, form, ", ".join(FORMS))


def note_process(**fields: object) -> None:
    """Sets context fields (see FIELDS) of all lines of this process."""
    _process.update({name: str(value) for name, value in fields.items()})


@contextmanager
def about(**fields: object) -> Generator[None]:
    """Sets context fields (see FIELDS) of this task's lines inside the block; "" and None are left out."""
    token = _about.set(
        {**(_about.get() or {}), **{name: str(value) for name, value in fields.items() if value not in ("", None)}}
    )
    try:
        yield
    finally:
        _about.reset(token)


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets in environment variables, longest first: values of variables whose names mark a secret, values of
    header fields for traces, and the password in the store's URL. Each is stripped; percent-decoded ones are added."""
    found = {value for name, value in environment.items() if _SECRET_NAMES.search(name)}
    found |= {value for text in map(environment.get, _HEADERS) for value in re.findall(r"=([^,]+)", text or "")}
    found.add(environment.get("OPENSEER_STORE_URL", "").rpartition("@")[0].rpartition(":")[2])
    bare = {value.strip() for value in found}
    bare |= {unquote(value) for value in bare}
    return tuple(sorted((value for value in bare if len(value) >= LEAST_SECRET), key=len, reverse=True))


class TextLines(logging.Formatter):
    """Formats a record as a line of text, followed by the traceback of an error. Lines after the first are indented,
    so that no text with line breaks looks like a record of its own."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__(_TEXT)
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, without secrets."""
        return f"\n{_INDENT}".join(self.without_secrets(super().format(record)).splitlines())

    def without_secrets(self, text: str) -> str:
        """The text with HIDDEN in place of each secret."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return _SECRETS.sub(_hidden, text)


class JsonLines(TextLines):
    """Formats a record as a JSON object: time (RFC 3339, UTC), level, logger, message, the context fields that are set,
    and the traceback of an error as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, without secrets."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.without_secrets(record.getMessage()),
        }
        fields = {**_process, **(_about.get() or {})}
        fields |= {name: str(getattr(record, name)) for name in FIELDS if hasattr(record, name)}
        entry |= {name: self.without_secrets(fields[name]) for name in FIELDS if name in fields}
        if record.exc_info:
            entry["exception"] = self.without_secrets(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def error_in(line: str) -> str | None:
    """The error in a log line that `termination.report` wrote, text or JSON; None for any other line."""
    if line.startswith(_INDENT):
        return None
    message = line
    if line.startswith("{"):
        try:
            message = f" openseer: {json.loads(line)['message']}"
        except (ValueError, KeyError, TypeError):
            return None
    _, mark, error = message.partition(f" openseer: {_ERROR}")
    return error if mark else None


def _hidden(match: re.Match[str]) -> str:
    return (match["before"] or match["scheme"] or match["field"]) + HIDDEN

"""Commands in the pages exist: commands and options of openseer, targets of make, programs and options."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import typer.main
import yaml

from openseer_local.main import app
from tests.docs.pages import commands, named
from tests.repository import ROOT

COMMAND: Any = typer.main.get_command(app)
START = r"^(?:\$ )?(?:[A-Z_]+=\S* )*(?:\.venv/bin/)?"
OPENSEER = re.compile(START + r"openseer (?P<words>[a-z-][^#]*)")
PROGRAM = re.compile(START + r"python3? (?P<path>[\w./-]+\.py)(?P<rest>[^#]*)")
MODULE = re.compile(START + r"python3? -m (?P<module>[\w.]+)")
MAKE = re.compile(START + r"make (?P<words>[^#|;&)]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def of_openseer(code: str) -> str:
    """The first word that the command line does not accept; empty if there is none."""
    found = OPENSEER.match(code)
    if found is None:
        return ""
    command = COMMAND
    names, options = found["words"].split(), _options(command)
    while hasattr(command, "commands"):
        names = [name for name in names if name not in options]
        if names and (names[0].isupper() or names[0] == "…"):
            return ""
        if not names or names[0].strip(",") not in command.commands:
            return " ".join(names[:1]) or "a command is missing"
        command = command.commands[names.pop(0).strip(",")]
        options |= _options(command)
    return " ".join(option for option in OPTION.findall(" ".join(names)) if option not in options)


def _options(command: Any) -> set[str]:
    return {"--help", *(name for option in command.params for name in (*option.opts, *option.secondary_opts))}


def of_programs(code: str) -> str:
    """A missing file, or the options that are neither in the file nor in its shared modules; empty if all exist."""
    found = PROGRAM.match(code)
    if found is None:
        return ""
    path = ROOT / found["path"]
    if not path.is_file():
        return found["path"]
    shared = (path.parent / "support").rglob("*.py")
    text = "\n".join(file.read_text(encoding="utf-8") for file in (path, *shared))
    return " ".join(option for option in OPTION.findall(found["rest"]) if option != "--help" and option not in text)


def of_modules(code: str) -> str:
    """A missing module of the repository; empty if it exists."""
    found = MODULE.match(code)
    if found is None or found["module"].split(".")[0] not in ("tests", "benchmarks", "openseer_worker"):
        return ""
    place = found["module"].replace(".", "/")
    roots = (ROOT, ROOT / "worker")
    return "" if any((root / f"{place}.py").exists() for root in roots) else found["module"]


def of_make(code: str) -> str:
    """Targets that the Makefile does not have; empty if it has all."""
    found = MAKE.match(code)
    if found is None:
        return ""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    words = [word for word in found["words"].split() if re.fullmatch(r"[a-z][a-z-]*", word)]
    return " ".join(word for word in words if word not in targets)


@pytest.mark.parametrize("unknown", [of_openseer, of_programs, of_modules, of_make], ids=lambda call: call.__name__)
def test_the_commands_in_pages_exist(unknown: Callable[[str], str]) -> None:
    wrong = [(named(page), code, unknown(code)) for page, code in commands() if unknown(code)]
    assert wrong == []


def test_the_workflow_for_forks_runs_existing_targets() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text(encoding="utf-8"))
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    lines = [line.strip() for step in steps for line in step.splitlines()]
    assert {"make check", "make site"} <= set(lines)
    assert [line for line in lines if of_make(line)] == []

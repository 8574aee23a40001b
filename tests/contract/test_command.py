"""The command line: commands, arguments, options and exit codes are those that scripts know."""

from typing import Any

import typer.main

from openseer_local.main import INTERRUPTED, UNEXPECTED, app
from tests.contract.recorded import compare
from tests.contract.scanning import quoted


def described(command: Any) -> dict[str, Any]:
    """A command with all below it."""
    found: dict[str, Any] = {"parameters": [parameter(one) for one in command.params]}
    if hasattr(command, "commands"):
        found["commands"] = {name: described(one) for name, one in sorted(command.commands.items())}
    return found


def parameter(one: Any) -> dict[str, Any]:
    """An argument or an option; arguments are told by their place."""
    is_option, kind = one.param_type_name == "option", one.type_descriptor.annotation
    return {
        "kind": one.param_type_name,
        "names": sorted([*one.opts, *one.secondary_opts]) if is_option else [],
        "type": kind.__name__ if isinstance(kind, type) else str(kind).replace("pathlib._local.", "pathlib."),
        "required": one.required,
        "default": None if callable(one.default) else one.default,
        "many": one.nargs != 1 or bool(getattr(one, "multiple", False)),
        "flag": bool(getattr(one, "is_flag", False)),
        "environment": one.envvar,
    }


def test_commands_take_what_they_took() -> None:
    compare("command", described(typer.main.get_command(app)))


def test_a_stop_and_a_defect_have_their_exit_codes() -> None:
    assert (INTERRUPTED, UNEXPECTED) == (130, 70)


def test_flags_of_a_pods_processes_are_the_same() -> None:
    compare("flags", {package: quoted(r"--[a-z][a-z-]+", package) for package in ("worker", "driver")})


def test_variables_of_the_environment_are_the_same() -> None:
    packages = ("core", "store", "worker", "driver", "api", "operator", "local", "draft")
    compare("environment", quoted(r"OPENSEER_[A-Z_]*", *packages))

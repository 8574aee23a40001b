"""The commands, arguments, options and exit codes on which scripts rely stay the same."""

from typing import Any

import typer.main

from openseer_local.main import INTERRUPTED, UNEXPECTED, app
from tests.contract.forms.recorded import compare
from tests.contract.forms.scanning import quoted


def described(command: Any) -> dict[str, Any]:
    """A command with its subcommands."""
    found: dict[str, Any] = {"parameters": [parameter(option) for option in command.params]}
    if hasattr(command, "commands"):
        found["commands"] = {name: described(subcommand) for name, subcommand in sorted(command.commands.items())}
    return found


def parameter(option: Any) -> dict[str, Any]:
    """An argument or an option; an argument has a position and no names."""
    is_option, kind = option.param_type_name == "option", option.type_descriptor.annotation
    return {
        "kind": option.param_type_name,
        "names": sorted([*option.opts, *option.secondary_opts]) if is_option else [],
        "type": kind.__name__ if isinstance(kind, type) else str(kind).replace("pathlib._local.", "pathlib."),
        "required": option.required,
        "default": None if callable(option.default) else option.default,
        "many": option.nargs != 1 or bool(getattr(option, "multiple", False)),
        "flag": bool(getattr(option, "is_flag", False)),
        "environment": option.envvar,
    }


def test_commands_keep_their_arguments_and_options() -> None:
    compare("command", described(typer.main.get_command(app)))


def test_an_interrupt_and_an_unexpected_error_keep_their_exit_codes() -> None:
    assert (INTERRUPTED, UNEXPECTED) == (130, 70)


def test_flags_of_a_pods_processes_are_the_same() -> None:
    compare("flags", {package: quoted(r"--[a-z][a-z-]+", package) for package in ("worker", "driver")})


def test_variables_of_the_environment_are_the_same() -> None:
    packages = ("core", "store", "worker", "driver", "api", "operator", "sim", "local", "draft")
    compare("environment", quoted(r"OPENSEER_[A-Z_]*", *packages))

"""docs/cli.md: every command with its arguments and options, as the command line takes them."""

from typing import Any

from tests.contract.pages.marked import cell

HEAD = "| option | default | what |\n|---|---|---|\n"


def options(command: Any, name: str = "openseer") -> str:
    """A section for each command, those below it included."""
    if hasattr(command, "commands"):
        return "".join(options(below, f"{name} {word}") for word, below in sorted(command.commands.items()))
    said = (command.help or "").strip()
    return f"### {name}\n\n{said}\n\n{HEAD}{''.join(map(row, command.params))}\n"


def row(option: Any) -> str:
    """The table row of an argument, named by its position, or of an option with its names."""
    is_argument = option.param_type_name == "argument"
    names = option.name.upper() if is_argument else ", ".join(option.opts + option.secondary_opts)
    default = "" if option.default is None or callable(option.default) else option.default
    if option.required:
        default = "required"
    elif default is False:
        default = ""
    variable = f" Or {option.envvar}." if option.envvar else ""
    return f"| `{names}` | {cell(default)} | {cell(option.help or '')}{variable} |\n"

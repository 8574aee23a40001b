"""The client keeps its public names and the parameters of its calls."""

import inspect
import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import openseer_client
from openseer_client import Checkpoint, Position, settings
from tests.contract.forms.adapters import Described, defined, described
from tests.contract.forms.recorded import compare, load

ADAPTERS = ("torch_grpo", "torch_weights", "trl", "verl", "verl_rollout")
"""Modules of the client that are imported by name."""
_GIVEN = re.compile(r"self\.([a-z]\w*)(?:: [^=]+)? = ")


def public(kind: type) -> list[str]:
    """The public attributes and methods of a class, including the attributes that `__init__` sets."""
    found = {name for name in dir(kind) if not name.startswith("_")}
    if issubclass(kind, BaseModel):
        return sorted(found - set(dir(BaseModel)) | set(kind.model_fields))
    found -= set(dir(Exception))
    for base in kind.__mro__:
        if base.__module__.startswith("openseer_") and "__init__" in vars(base):
            found |= set(_GIVEN.findall(inspect.getsource(vars(base)["__init__"]))) if _is_written(base) else set()
    return sorted(found)


def _is_written(kind: type) -> bool:
    return not hasattr(kind, "__dataclass_fields__")


def parameters(call: Any) -> list[str]:
    """Kinds and names of the parameters; `=` marks an optional one."""
    try:
        signature = inspect.signature(call)
    except ValueError:
        return []
    return [
        f"{parameter.kind.name.lower()} {parameter.name}{'=' * (parameter.default is not parameter.empty)}"
        for parameter in signature.parameters.values()
    ]


def told(name: str) -> dict[str, Any]:
    kind = getattr(openseer_client, name)
    names = public(kind)
    methods = {
        method: parameters(getattr(kind, method)) for method in names if inspect.isfunction(getattr(kind, method, None))
    }
    words = {field: getattr(kind, field) for field in ("exit_code", "retryable") if hasattr(kind, field)}
    # A model's fields are given by name, so the order of its parameters does not matter.
    made = parameters(kind) if not issubclass(kind, BaseModel) else sorted(parameters(kind))
    return {"made with": made, "names": names, "methods": methods, **words}


def test_the_package_keeps_its_exports() -> None:
    compare("client", {name: told(name) for name in sorted(openseer_client.__all__)})


def test_errors_keep_their_base_classes() -> None:
    kinds = {name: getattr(openseer_client, name) for name in openseer_client.__all__ if name.endswith("Error")}
    found = {
        name: sorted(other for other, base in kinds.items() if other != name and issubclass(kind, base))
        for name, kind in sorted(kinds.items())
    }
    compare("client_errors", found)


@pytest.mark.parametrize("module", ADAPTERS)
def test_an_adapter_keeps_its_public_names(module: str) -> None:
    place = f"openseer_client.{module}"
    if os.environ.get("OPENSEER_REWRITE"):
        made: dict[str, Described] = defined(place)
    else:
        made = {name: described(place, name) for name in load(f"client_{module}")}
    compare(f"client_{module}", made)


def test_a_checkpoint_keeps_its_format(tmp_path: Path) -> None:
    path, position = tmp_path / "checkpoint.json", Position(7, True, {"q1": 6}, 3)
    Checkpoint(path).save(4, position)
    compare("checkpoint", path.read_text(encoding="utf-8"))
    path.write_text(load("checkpoint"), encoding="utf-8")
    assert Checkpoint(path).position(4) == position


def test_a_client_keeps_its_environment_variables() -> None:
    assert (settings.URL, settings.TOKEN, settings.TOKEN_FILE) == (
        "OPENSEER_URL",
        "OPENSEER_TOKEN",
        "OPENSEER_TOKEN_FILE",
    )

"""Public names of adapter modules, read from their source: an import is slow or needs a trainer's packages."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Described = dict[str, Any]


def defined(module: str) -> dict[str, Described]:
    """The public classes and functions of a module, with their parameters, methods and attributes."""
    names = [name for name, node in _names(module).items() if isinstance(node, Definition)]
    return {name: described(module, name) for name in sorted(names) if not name.startswith("_")}


def described(module: str, name: str) -> Described:
    """One class or function; it may be defined in another module of openseer and imported here."""
    home, node = _find(module, name)
    return _class(home, node) if isinstance(node, ast.ClassDef) else {"parameters": _parameters(node)}


def _class(module: str, node: ast.ClassDef) -> Described:
    """The methods and attributes of a class, including those inherited from openseer's own classes."""
    methods: dict[str, list[str]] = {}
    attributes: set[str] = set()
    for base in node.bases:
        if isinstance(base, ast.Name) and _is_ours(module, base.id):
            found = described(module, base.id)
            methods |= found["methods"]
            attributes |= set(found["attributes"])
    for part in node.body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and _is_called(part.name):
            methods[part.name] = _parameters(part)
        attributes |= _attributes(part)
    kept = sorted(name for name in attributes if not name.startswith("_"))
    return {"methods": dict(sorted(methods.items())), "attributes": kept}


def _is_called(name: str) -> bool:
    return name in ("__init__", "__call__") or not name.startswith("_")


@cache
def _names(module: str) -> dict[str, Definition | ast.ImportFrom]:
    spec = find_spec(module)
    assert spec is not None, f"{module} is missing"
    assert spec.origin is not None, f"{module} is missing"
    found: dict[str, Definition | ast.ImportFrom] = {}
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, Definition):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: node for alias in node.names}
    return found


def _is_ours(module: str, name: str) -> bool:
    node = _names(module).get(name)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").startswith("openseer_")
    return node is not None


def _find(module: str, name: str) -> tuple[str, Definition]:
    node = _names(module).get(name)
    assert node is not None, f"{module}.{name} is missing"
    if not isinstance(node, ast.ImportFrom):
        return module, node
    assert node.module is not None, f"{module}.{name}: found a relative import"
    [own] = [alias.name for alias in node.names if (alias.asname or alias.name) == name]
    return _find(node.module, own)


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The parameters in order; `=` marks an optional one, `*` precedes the keyword-only ones."""
    given = function.args
    places = [*given.posonlyargs, *given.args]
    required = len(places) - len(given.defaults)
    found = [one.arg + "=" * (place >= required) for place, one in enumerate(places)]
    found += ["*" + given.vararg.arg] if given.vararg else ["*"] * bool(given.kwonlyargs)
    found += [
        one.arg + "=" * (default is not None) for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    return [*found, *(["**" + given.kwarg.arg] if given.kwarg else [])]


def _attributes(part: ast.stmt) -> set[str]:
    """The attributes that one statement of a class defines: a field, a property, the assignments of `__init__`."""
    match part:
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.FunctionDef(name="__init__"):
            return {node.attr for node in ast.walk(part) if isinstance(node, ast.Attribute) and _is_given(node)}
        case ast.FunctionDef(decorator_list=[ast.Name(id="property")], name=name):
            return {name}
        case _:
            return set()


def _is_given(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"

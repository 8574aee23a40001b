"""String constants in the source. Names that other programs rely on are found there also after files have moved."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.repository import ROOT


def sources(*packages: str) -> Iterator[ast.Module]:
    """The modules of these packages, each a folder below the root."""
    for path in paths(*packages):
        yield ast.parse(path.read_text(encoding="utf-8"))


def paths(*packages: str) -> list[Path]:
    """The Python files of these packages, at any depth."""
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def quoted(pattern: str, *packages: str) -> list[str]:
    """The texts in double quotes in their source that match the whole pattern."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths(*packages))
    return sorted(set(re.findall(f'"({pattern})"', text)))


def texts(pattern: str, *packages: str) -> list[str]:
    """All string constants that match the whole pattern, except names of types and of exports."""
    word = re.compile(pattern)
    found: set[str] = set()
    for module in sources(*packages):
        passed = {id(node) for place in _type_places(module) for node in ast.walk(place)}
        for node in ast.walk(module):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
                found |= {node.value} if word.fullmatch(node.value) else set()
    return sorted(found)


def _type_places(module: ast.Module) -> Iterator[ast.AST]:
    """The expressions in which a string is the name of a class, function or module."""
    for node in ast.walk(module):
        match node:
            case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=ast.expr() as annotation):
                yield annotation
            case ast.FunctionDef(returns=ast.expr() as returns) | ast.AsyncFunctionDef(returns=ast.expr() as returns):
                yield returns
            case ast.Call(func=ast.Name(id="cast" | "TypeVar"), args=[first, *_]):
                yield first
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                yield value
            case _:
                pass


def keys_of_metrics(*packages: str) -> list[str]:
    """The keys of every dictionary in a function named `metrics` or `figures`."""
    found: set[str] = set()
    for module in sources(*packages):
        for function in ast.walk(module):
            if isinstance(function, ast.FunctionDef) and function.name in ("metrics", "figures"):
                dicts = [node for node in ast.walk(function) if isinstance(node, ast.Dict)]
                keys = [key for literal in dicts for key in literal.keys]
                found |= {str(key.value) for key in keys if isinstance(key, ast.Constant)}
    return sorted(found)

"""Rules for all files: sizes, docstrings, packages, locks, words."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository import ROOT

SOURCE_ROOTS = ("core", "draft", "store", "text", "process", "operator", "worker", "driver", "api", "sim", "local")
FOLDERS = (
    *SOURCE_ROOTS,
    "tests",
    "benchmarks",
    "examples",
    "docs",
    "crds",
    "charts",
    "cluster",
    "images",
    "page",
    "requirements",
    ".ci",
    ".github",
)
CODE = (".py", ".lua", ".sh", ".ts", ".tsx")
TEXT = (*CODE, ".md", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".css", ".js", ".html", ".j2", "")
MOST_LINES = 400
MOST_MODULES = 16
MIRRORED = {"Rollout"}
"""Class names that two protocols share: TRL and verl each call a class that generates a rollout."""


def files() -> Iterator[Path]:
    """The repository's own files, without caches and the output of runs."""
    tops = [path for path in ROOT.iterdir() if path.is_file()]
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in (*tops, *below):
        inside = path.relative_to(ROOT).parts
        if not {"__pycache__", "node_modules", "runs"} & set(inside) and path.name != ".git":
            yield path


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


CODE_FILES = sorted(path for path in files() if path.suffix in CODE)
PYTHON_FILES = [path for path in CODE_FILES if path.suffix == ".py"]
PACKAGES = [path for path in PYTHON_FILES if path.name == "__init__.py" and "benchmarks" not in path.parts]
TEXT_FILES = sorted(path for path in files() if path.suffix in TEXT and path.name != "LICENSE")
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("path", CODE_FILES, ids=named)
def test_a_code_file_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", PYTHON_FILES, ids=named)
def test_a_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("folder", sorted({path.parent for path in PYTHON_FILES}), ids=named)
def test_a_folder_holds_at_most_sixteen_modules(folder: Path) -> None:
    assert len([path for path in PYTHON_FILES if path.parent == folder and path.name != "__init__.py"]) <= MOST_MODULES


@pytest.mark.parametrize("path", PACKAGES, ids=named)
def test_a_package_names_its_main_modules_and_its_tests(path: Path) -> None:
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    assert "Read " in text
    for folder in re.findall(r"tests/[\w./]+\w", text.partition("Tests:")[2]) or ["no tests named"]:
        assert (ROOT / folder).exists(), folder


def test_a_public_class_name_stands_for_one_class() -> None:
    places: dict[str, list[str]] = {}
    for path in PYTHON_FILES:
        if path.relative_to(ROOT).parts[0] in SOURCE_ROOTS:
            for name in public_types(ast.parse(path.read_text(encoding="utf-8"))):
                places.setdefault(name, []).append(named(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1 and name not in MIRRORED} == {}


def public_types(module: ast.Module) -> Iterator[str]:
    """Classes, and aliases of types (CamelCase names that are assigned to)."""
    for node in module.body:
        match node:
            case (
                ast.ClassDef(name=name)
                | ast.Assign(targets=[ast.Name(id=name)])
                | ast.AnnAssign(target=ast.Name(id=name))
            ):
                if name[0].isupper() and not name.isupper() and "_" not in name:
                    yield name
            case _:
                pass


def test_tests_are_no_packages_and_operator_hides_no_standard_module() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    # A package named like a standard module would break Python started in the repository's root.
    assert not [folder for folder in SOURCE_ROOTS if (ROOT / folder / "__init__.py").exists()]


def test_the_wheel_holds_every_package() -> None:
    found = {named(path.parent) for folder in SOURCE_ROOTS for path in (ROOT / folder).glob("*/__init__.py")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == found


def test_import_directions_are_checked_for_every_package() -> None:
    found = {path.parent.name for folder in SOURCE_ROOTS for path in (ROOT / folder).glob("*/__init__.py")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["importlinter"]["root_packages"]) == found


@pytest.mark.parametrize("image", ["operator", "worker-none", "worker-cpu", "worker-gpu"])
def test_an_image_holds_the_versions_that_tests_ran_with(image: str) -> None:
    tested = "gpu" if image.endswith("gpu") else "cpu"
    ours, theirs = (
        set(re.findall(r"^[\w.-]+==\S+", (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8"), re.MULTILINE))
        for name in (f"image-{image}", tested)
    )
    assert ours - theirs == set()


@pytest.mark.parametrize("path", LOCKS, ids=named)
def test_a_lock_has_hashes_and_names_no_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "--hash=sha256:" in text
    assert not re.search(r"https?://|index-url|find-links|trusted-host", text)


@pytest.mark.parametrize("path", TEXT_FILES, ids=named)
def test_a_file_has_no_marks_of_open_work_and_no_local_paths(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # Written apart, so that this file passes too.
    unfinished = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"))
    assert not re.findall(rf"\b({unfinished})\b", text)
    # Folders of one person's machine. Folders of images and of the system are allowed.
    assert not re.findall(r"(?<![\w.$}/-])/(?:root|work|Users/\w+|home/\w+)/[\w.-]+", text)

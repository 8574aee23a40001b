"""The contents of an image are named exactly, from dpkg's list, Python's metadata and the lock."""

import runpy
from typing import Any

import pytest

from tests.repository import ROOT

SBOM = runpy.run_path(str(ROOT / "images" / "sbom.py"))
STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: GNU C Library
 Version: not a field

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
LOCK = """anyio==4.1 \\
    --hash=sha256:00
    # via
    #   httpx
    #   openseer (pyproject.toml)
numpy==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:00
    # via anyio
numpy==2.0 ; python_full_version >= '3.12' \\
    --hash=sha256:00
    # via anyio
httpx==0.3 ; sys_platform == 'win32' \\
    --hash=sha256:00
    # via openseer (pyproject.toml)
"""


def bill(*packages: tuple[str, str, str | None]) -> dict[str, Any]:
    debian = list(SBOM["debian_components"](STATUS, "12"))
    return SBOM["bill"]("openseer-worker", LOCK, debian, list(SBOM["python_components"](packages)))


def test_every_package_has_its_purl_and_its_dependencies() -> None:
    made = bill(("openseer", "0.1.0", None), ("AnyIO", "4.1", "MIT"), ("numpy", "1.0", None))
    libc, anyio, numpy, project = (
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12",
        *("pkg:pypi/anyio@4.1", "pkg:pypi/numpy@1.0", "pkg:pypi/openseer@0.1.0"),
    )
    assert [entry["purl"] for entry in made["components"]] == [libc, anyio, numpy, project]
    assert made["components"][1]["licenses"] == [{"expression": "MIT"}]
    below = {entry["ref"]: entry["dependsOn"] for entry in made["dependencies"]}
    assert below == {
        "openseer-worker": [libc, project],
        project: [anyio],
        anyio: [numpy],
        numpy: [],
        libc: [],
    }
    assert made["metadata"]["component"]["version"] == "0.1.0"


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        (("numpy", "3.0", None), "numpy: found 3.0, the lock allows: 1.0, 2.0"),
        (("pip", "23.0", None), "pip: found 23.0, the lock allows: none"),
    ],
)
def test_a_package_that_the_lock_does_not_name_is_an_error(package: tuple[str, str, None], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        bill(("openseer", "0.1.0", None), package)


def test_the_locks_of_the_images_are_read_whole() -> None:
    for lock in sorted((ROOT / "requirements").glob("image-*.txt")):
        text = lock.read_text(encoding="utf-8")
        pinned: dict[str, tuple[set[str], set[str]]] = SBOM["pins"](text)
        assert sum(len(versions) for versions, _ in pinned.values()) == text.count("==") - text.count(" == '")
        users = {user for _, names in pinned.values() for user in names}
        assert users <= pinned.keys() | {"openseer"}, lock

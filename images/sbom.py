#!/usr/bin/env python3
"""Writes an image's bill of materials (CycloneDX 1.6, JSON) to standard output; the Dockerfiles run it in the image.

sbom.py TITLE LOCK   TITLE: the image's name; LOCK: the lock that its packages were installed from

Debian's packages come from dpkg's list, Python's from their metadata, and the dependencies from the lock. A package
that the lock does not name is an error. It is a script instead of a scanner because both lists are exact, every builder
runs it without a download, and without times or random numbers the same image has the same bill.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

PROJECT = "openseer"
DPKG_STATUS = Path("/var/lib/dpkg/status")
RELEASE = Path("/etc/os-release")


def normal(name: str) -> str:
    """Returns a Python package's normalised name, as in package indexes."""
    return re.sub(r"[-_.]+", "-", name).lower()


def debian_components(status: str, release: str) -> Iterator[dict[str, Any]]:
    """Yields components of Debian's packages. `status`: text of dpkg's list; `release`: Debian's version, as "12"."""
    for stanza in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version|Architecture): (.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            reference = f"pkg:deb/debian/{quote(name, safe='')}@{quote(version, safe='')}"
            reference += f"?arch={fields['Architecture']}&distro=debian-{release}"
            yield component(name, version, reference)


def python_components(packages: Iterable[tuple[str, str, str | None]]) -> Iterator[dict[str, Any]]:
    """Yields components of Python's packages. `packages`: name, version, licence (SPDX expression or None)."""
    for name, version, licence in packages:
        made = component(normal(name), version, f"pkg:pypi/{normal(name)}@{quote(version, safe='')}")
        yield made | ({"licenses": [{"expression": licence}]} if licence else {})


def component(name: str, version: str, reference: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference}


def pins(lock: str) -> dict[str, tuple[set[str], set[str]]]:
    """Returns for each package in the lock its versions (several if they depend on the platform) and its dependants."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    users: set[str] = set()
    for line in lock.splitlines():
        if pinned := re.match(r"([A-Za-z0-9][\w.-]*)(?:\[[^]]*])?==([^\s;]+)", line):
            versions, users = found.setdefault(normal(pinned[1]), (set(), set()))
            versions.add(pinned[2])
        elif user := re.match(r"\s+#\s+(?!via$)(?:via )?([A-Za-z0-9][\w.-]*)", line):
            users.add(normal(user[1]))
    return found


def bill(title: str, lock: str, debian: list[dict[str, Any]], python: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the bill of materials of the image `title`. Raises ValueError if packages differ from the lock."""
    pinned = pins(lock)
    held = {entry["name"]: entry for entry in python}
    for name, entry in held.items():
        allowed = pinned[name][0] if name in pinned else set[str]()
        if name != PROJECT and entry["version"] not in allowed:
            raise ValueError(
                f"{name}: found {entry['version']}, the lock allows: {', '.join(sorted(allowed)) or 'none'}"
            )
    edges: dict[str, list[str]] = {entry["bom-ref"]: [] for entry in [*debian, *python]}
    for name in pinned.keys() & held.keys():
        for user in pinned[name][1] & held.keys():
            edges[held[user]["bom-ref"]].append(held[name]["bom-ref"])
    edges[title] = [entry["bom-ref"] for entry in debian] + [held[PROJECT]["bom-ref"]]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "bom-ref": title, "name": title, "version": held[PROJECT]["version"]}
        },
        "components": sorted([*debian, *python], key=lambda entry: entry["bom-ref"]),
        "dependencies": [{"ref": name, "dependsOn": sorted(below)} for name, below in sorted(edges.items())],
    }


def main(title: str, lock: str) -> None:
    release = re.search(r'^VERSION_ID="?([^"\n]*)', RELEASE.read_text(encoding="utf-8"), re.MULTILINE)
    assert release, f"{RELEASE}: no VERSION_ID"
    debian = debian_components(DPKG_STATUS.read_text(encoding="utf-8"), release[1])
    python = python_components(
        (
            package.metadata["Name"],
            package.version,
            next(iter(package.metadata.get_all("License-Expression") or ()), None),
        )
        for package in distributions()
    )
    made = bill(title, Path(lock).read_text(encoding="utf-8"), list(debian), list(python))
    json.dump(made, sys.stdout, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])

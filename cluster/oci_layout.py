#!/usr/bin/env python3
"""Lists the layers of an OCI image layout, removes its other images, or writes it as a tar without given layers.

oci_layout.py keep-only LAYOUT TAG   removes other images and the blobs that only they used
oci_layout.py layers LAYOUT          prints the layers' digests, one a line
oci_layout.py tar LAYOUT HELD        writes a tar to standard output; HELD: file of digests to leave out, may be absent
"""

import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def manifest_of(layout: Path) -> tuple[str, dict[str, Any]]:
    """Returns the digest and the manifest of the only image in the layout."""
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    return digest, json.loads(blob(layout, digest).read_text())


def layers(layout: Path) -> list[str]:
    return [layer["digest"] for layer in manifest_of(layout)[1]["layers"]]


def keep_only(layout: Path, tag: str) -> None:
    index = json.loads((layout / "index.json").read_text())
    names = "org.opencontainers.image.ref.name"
    index["manifests"] = [entry for entry in index["manifests"] if entry.get("annotations", {}).get(names) == tag][-1:]
    (layout / "index.json").write_text(json.dumps(index))
    digest, manifest = manifest_of(layout)
    used = {blob(layout, name) for name in (digest, manifest["config"]["digest"], *layers(layout))}
    # Also removes a partial blob, from a push that was killed.
    for path in (*(layout / "blobs" / "sha256").iterdir(), *layout.glob("oci-put-blob*")):
        if path not in used:
            path.unlink()


def write_tar(layout: Path, held: set[str]) -> None:
    digest, manifest = manifest_of(layout)
    wanted = [digest, manifest["config"]["digest"], *(name for name in layers(layout) if name not in held)]
    paths = [layout / "oci-layout", layout / "index.json", *(blob(layout, name) for name in dict.fromkeys(wanted))]
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in paths:
            archive.add(path, arcname=str(path.relative_to(layout)))


def main(verb: str, folder: str, *rest: str) -> None:
    layout = Path(folder)
    if verb == "keep-only":
        keep_only(layout, rest[0])
    elif verb == "layers":
        sys.stdout.writelines(f"{name}\n" for name in layers(layout))
    elif verb == "tar":
        held = Path(rest[0])
        write_tar(layout, set(held.read_text().split()) if held.exists() else set())
    else:
        raise SystemExit(__doc__)


try:
    main(*sys.argv[1:])
except BrokenPipeError:
    # The reader has already reported its error.
    os._exit(1)

"""Builds the site from the repository's Markdown: `make site`, or `python docs/site/build.py FOLDER`.

Every page keeps its place below the root, so a link between two pages is the same here as in the repository. A link to
a file that is no page leads to a page that shows the file, a link to a folder to its README or to a list of its files.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTENTS = Path(__file__).with_name("zensical.toml")
FIRST = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
IMAGES = (".svg", ".png", ".gif", ".jpg", ".webp")
LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?=[)#\s])")
"""What a Markdown link leads to, without its anchor; an address of the web has a colon."""
FENCE = re.compile(r"^(```|~~~).*?^\1[`~]*$", re.MULTILINE | re.DOTALL)
WORDS = re.compile(r"(?<=^```)(\w+) .+$", re.MULTILINE)
"""What follows a fence's language is for tests; the site's builder would take such a fence for text."""


def build(folder: Path) -> None:
    """Writes the site to the folder's `html`. Raises CalledProcessError where a link or an anchor is broken."""
    shutil.rmtree(folder, ignore_errors=True)
    stage(folder / "pages")
    settings = shutil.copy(CONTENTS, folder)
    tool = Path(sys.executable).with_name("zensical")
    subprocess.run([tool, "build", "--strict", "--config-file", settings], check=True)


def stage(pages: Path) -> None:
    """Copies all pages and what they lead to."""
    waiting = [ROOT / name for name in FIRST] + sorted((ROOT / "docs").rglob("*.md"))
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        place = pages / place_of(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in IMAGES:
            shutil.copyfile(path, place)
            continue
        text = text_of(path)
        waiting += [target for _, target in links(path, text)]
        place.write_text(linked(path, text), encoding="utf-8")


def place_of(path: Path) -> Path:
    """Where a file or folder stands in the site, relative to its root."""
    inside = path.relative_to(ROOT)
    if path.is_dir():
        return inside / "README.md"
    return inside if path.suffix in (".md", *IMAGES) else inside.with_name(f"{inside.name}.md")


def text_of(path: Path) -> str:
    """A page as it stands; of a folder its README or a list; of a file its content."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    title = f"# {path.relative_to(ROOT)}\n\n"
    if path.is_dir():
        readme = path / "README.md"
        names = sorted(child.name for child in path.iterdir() if not child.name.startswith(("_", ".")))
        return readme.read_text(encoding="utf-8") if readme.exists() else title + "".join(f"* `{n}`\n" for n in names)
    return f"{title}~~~~~~ {path.suffix.removeprefix('.') or 'text'}\n{path.read_text(encoding='utf-8')}\n~~~~~~\n"


def links(path: Path, text: str) -> Iterator[tuple[str, Path]]:
    """What a page leads to inside the repository: as it is written, and where that is."""
    base = path if path.is_dir() else path.parent
    for found in LINK.finditer(FENCE.sub("", text)):
        target = (base / found["path"]).resolve()
        if target.exists():
            yield found["path"], target


def linked(path: Path, text: str) -> str:
    """The page with each link to a file or folder replaced by one to the page that shows it."""
    text = WORDS.sub(r"\1", text)
    for written, target in set(links(path, text)):
        if target.is_dir():
            text = re.sub(rf"\]\({re.escape(written)}(?=[)#\s])", f"]({written.rstrip('/')}/README.md", text)
        elif target.suffix not in (".md", *IMAGES):
            text = re.sub(rf"\]\({re.escape(written)}(?=[)#\s])", f"]({written}.md", text)
    return text


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "build/site").resolve())

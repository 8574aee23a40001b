"""The repository's Markdown pages, with their links and the commands that they name."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docs.site.build import FENCE
from tests.repository import ROOT

FOLDERS = ("docs", "examples", "charts", "cluster", "images", "page", "benchmarks", "requirements", "tests")
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")))
    if not {"node_modules", "runs", "__pycache__"} & set(path.parts)
)
_BLOCK = re.compile(r"^```(?P<words>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\((?P<path>[^)\s#:]*)(?:#(?P<anchor>[^)\s]+))?\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")


def named(page: Path) -> str:
    """The path of the page in the repository."""
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced piece of a page: its language with further words, and its text."""

    page: Path
    words: str
    text: str

    @property
    def language(self) -> str:
        """The first word; empty if there is none."""
        return (self.words.split() or [""])[0]


def blocks(*languages: str) -> list[Block]:
    """All fenced pieces in these languages."""
    found = [
        Block(page, match["words"], match["text"])
        for page in PAGES
        for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]
    return [block for block in found if block.language in languages]


def prose(page: Path) -> str:
    """The page without its fenced pieces."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> Iterator[re.Match[str]]:
    """Links inside the repository, each with a `path` and an `anchor`; text in code is no link."""
    return _LINK.finditer(_CODE.sub("`code`", prose(page)))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings; of equal headings only the first anchor."""
    return {anchor(heading) for heading in _HEADING.findall(prose(page))}


def anchor(heading: str) -> str:
    """A heading in lower case, without punctuation, with hyphens for spaces."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return _NOT_IN_ANCHORS.sub("", plain).replace(" ", "-")


def commands() -> Iterator[tuple[Path, str]]:
    """Each page with its shell lines and inline code, one by one; continued lines are joined."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            if match["words"] in ("", "sh", "bash", "shell", "console"):
                yield from ((page, line) for line in match["text"].replace("\\\n", " ").splitlines())
        yield from ((page, code) for code in _CODE.findall(prose(page)))

"""Runs a command in a terminal and writes what the terminal shows as an animated SVG: the recording in README.md.

    python docs/images/record.py docs/images/run.svg -- openseer run examples/arithmetic.yaml --fresh

The terminal is emulated by pyte. An image has no scripts, so the frames stand below one another and CSS moves them past
a window; readers who turn motion off see the last frame.
"""

import argparse
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import pyte

COLUMNS, ROWS = 104, 12
SPEED = 6.0
"""Seconds of the run per second of the recording."""
FRAME_SECONDS = 1.5
"""Shortest time of the run between two frames."""
LAST_SECONDS = 4.0
"""Time for which the recording shows the last frame."""
CELL, LINE, MARGIN = 8.43, 19, 14
"""Width and height of a character cell and the margin around the screen, in pixels."""
PAPER, INK = "#16191d", "#d7dce2"
COLOURS = {
    "red": "#e0695f",
    "green": "#6fbf8e",
    "brown": "#dd9a2f",
    "blue": "#6ba4de",
    "magenta": "#b48ad8",
    "cyan": "#5fb8c4",
    "brightblack": "#7d858f",
    "black": "#7d858f",
}

_HEX = re.compile("[0-9a-f]{6}")

Frame = list[str]
"""A line of SVG text for each line of the screen."""


def recorded(command: list[str]) -> list[tuple[float, Frame]]:
    """What the terminal shows and when, in seconds since the start. Raises SystemExit where the command fails."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    stream.feed(f"$ {' '.join(command)}\r\n".encode())
    frames = [(0.0, frame(screen))]
    begun = time.monotonic()
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm-256color"}
    ) as process:
        os.close(theirs)
        while True:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    data = os.read(ours, 1 << 16)
                except OSError:  # the command has ended
                    break
                stream.feed(data)
            now = time.monotonic() - begun
            if now - frames[-1][0] >= FRAME_SECONDS and frame(screen) != frames[-1][1]:
                frames.append((now, frame(screen)))
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with code {process.returncode}")
    return [*frames, (time.monotonic() - begun, frame(screen))]


def frame(screen: pyte.Screen) -> Frame:
    """The screen as it is."""
    return [line(screen, row) for row in range(ROWS)]


def line(screen: pyte.Screen, row: int) -> str:
    """A line of the screen: a tspan for each run of characters of one look, placed by its first column."""
    cells = [screen.buffer[row][column] for column in range(COLUMNS)]
    parts: list[str] = []
    column = 0
    for look, run in groupby(cells, _look):
        text = "".join(cell.data for cell in run)
        if text.strip():
            inner = len(text) - len(text.lstrip())
            parts.append(f'<tspan x="{MARGIN + (column + inner) * CELL:.1f}"{look}>{escape(text.strip())}</tspan>')
        column += len(text)
    return "".join(parts)


def _look(cell: Any) -> str:
    colour = f"#{cell.fg}" if _HEX.fullmatch(cell.fg) else COLOURS.get(cell.fg, "")
    return (f' fill="{colour}"' if colour else "") + (' font-weight="bold"' if cell.bold else "")


def svg(frames: list[tuple[float, Frame]], title: str) -> str:
    """The recording."""
    width, height = COLUMNS * CELL + 2 * MARGIN, ROWS * LINE + 2 * MARGIN
    ends = [at for at, _ in frames[1:]] + [frames[-1][0] + LAST_SECONDS * SPEED]
    whole = ends[-1]
    moves = "".join(
        f"{100 * at / whole:.2f}%{{transform:translateY({-number * height:.0f}px)}}"
        for number, (at, _) in enumerate(frames)
    )
    last = f"translateY({-(len(frames) - 1) * height:.0f}px)"
    screens = "\n".join(_screen(lines, number * height) for number, (_, lines) in enumerate(frames))
    view = f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {view}>
<style>
text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:{INK};white-space:pre}}
@keyframes play{{{moves}100%{{transform:{last}}}}}
.frames{{animation:play {whole / SPEED:.1f}s step-end infinite}}
@media (prefers-reduced-motion:reduce){{.frames{{animation:none;transform:{last}}}}}
</style>
<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>
<g class="frames">
{screens}
</g>
</svg>
"""


def _screen(lines: Frame, top: float) -> str:
    texts = (
        f'<text y="{top + MARGIN + (row + 0.78) * LINE:.0f}">{text}</text>' for row, text in enumerate(lines) if text
    )
    return "".join(texts)


def main() -> None:
    """Records what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="SVG file to write")
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args()
    title = f"A terminal that runs {' '.join(options.command)}, {SPEED:g} times as fast as it was"
    options.file.write_text(svg(recorded(options.command), title), encoding="utf-8")


if __name__ == "__main__":
    main()

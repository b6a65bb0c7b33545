# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pages of the documentation, and the commands that they show."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
FOLDER = TOP / "doc/lsst.drp.restore"

# Words with which commands in running text begin.
_PROGRAMS = ("bps", "butler", "make", "pip", "pipetask", "python", "scons", "setup", "towncrier")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A command that a page shows.

    Parameters
    ----------
    page : `str`
        Name of the page's file.
    words : `tuple` [`str`, ...]
        The program and its arguments.
    inline : `bool`
        Whether it is in running text, where it may be cut short.
    """

    page: str
    words: tuple[str, ...]
    inline: bool

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def pages() -> list[Path]:
    """Return all pages that people read, the README among them."""
    return [TOP / "README.md", *sorted(FOLDER.glob("*.md")), *sorted((TOP / "notebooks").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of code in a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def inline_code(page: Path) -> list[str]:
    """Return the code in the running text of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`]+)`", text)


def commands(page: Path) -> list[Command]:
    """Return the commands on a page: lines of its blocks of shell commands,
    and what looks like a command in running text.
    """
    found = []
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line and not line.startswith("#"):
                found.append(Command(page=page.name, words=tuple(shlex.split(line)), inline=False))
    for code in inline_code(page):
        words = code.split()
        if len(words) > 1 and words[0] in _PROGRAMS:
            found.append(Command(page=page.name, words=tuple(shlex.split(code)), inline=True))
    return found


def settings(page: Path) -> list[str]:
    """Return the settings ``label:field=value`` that a page shows in running
    text as ``-c label:field=value``.
    """
    options = [code for code in inline_code(page) if code.startswith("-c ")]
    return [setting for code in options for setting in re.findall(r"-c (\w+:\S+)", code)]

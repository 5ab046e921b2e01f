"""The documents as their readers see them: tables, blocks of code, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Final

__all__ = ["DOCUMENTS", "ROOT", "Block", "anchors", "blocks", "cells", "code", "commands", "links", "read", "section"]

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = tuple(
    str(path.relative_to(ROOT))
    for path in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "grafana/README.md",
        *sorted(ROOT.glob("docs/**/*.md")),
    )
)

_BLOCK: Final = re.compile(r"^( *)```(\w*) *([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_SPAN: Final = re.compile(r"(`+) ?(.+?) ?\1(?!`)")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code: its language, what else its first line says, and the text."""

    language: str
    note: str
    text: str


def read(name: str) -> str:
    """Return a document by its path from the top of the project."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[Block]:
    """Return the blocks of a language, without the indentation of a list they stand in."""
    found = (Block(match[2], match[3], dedent(match[4])) for match in _BLOCK.finditer(text))
    return [block for block in found if block.language == language]


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Return the commands of a console block, each with the lines shown after it."""
    shown: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            shown.append((line[2:], []))
        else:
            shown[-1][1].append(line)
    return shown


def cells(text: str, *head: str) -> list[list[str]]:
    """Return the rows of the one table whose head begins with these cells."""
    start = "| " + " | ".join(head) + " |"
    tables = [table for table in re.split(r"\n(?!\|)", text) if table.lstrip("\n").startswith(start)]
    assert len(tables) == 1, f"{len(tables)} tables begin with {start}"
    rows = tables[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def code(text: str) -> list[str]:
    """Return what stands in backticks outside of blocks."""
    return [span for _, span in _SPAN.findall(_BLOCK.sub("", text))]


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, sections below it included."""
    match = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert match, f"no heading {heading!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", _without_comments(rest), re.MULTILINE)
    return rest[: end.start()] if end else rest


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, made as GitHub makes them."""
    titles = (heading.lower() for heading in _HEADING.findall(_BLOCK.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def links(text: str) -> list[str]:
    """Return the targets of the links outside of code."""
    return _LINK.findall(_SPAN.sub("", _BLOCK.sub("", text)))


def _without_comments(text: str) -> str:
    """Blank the first character of each line in blocks, where # begins a comment, and keep every position."""
    return _BLOCK.sub(lambda block: re.sub(r"^#", " ", block[0], flags=re.MULTILINE), text)

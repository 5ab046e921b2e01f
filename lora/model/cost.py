"""What a YAML text costs once it is read, found out from its events alone: those take no memory.

A node of YAML can be two bytes long and take hundreds in memory. An alias repeats
what its anchor holds, so a few lines can stand for more nodes than any memory has.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

__all__ = ["MOST_DEPTH", "MOST_NODES", "problem_of"]

# A Model of 3,000 adapters has 15,000 nodes.
MOST_NODES: Final = 50_000
MOST_DEPTH: Final = 100

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def problem_of(text: bytes) -> str | None:
    """Return why a text must not be read, as the end of a sentence that begins with its name.

    Raises:
        yaml.YAMLError: It is not YAML.
    """
    count = _Count()
    for event in yaml.parse(text, Loader=_Parser):
        count.take(event)
        if len(count.open) > MOST_DEPTH:
            return f"is nested more than {MOST_DEPTH} deep"
        if count.nodes > MOST_NODES:
            return f"has more than {MOST_NODES:,} values, those included that aliases repeat"
    return None


class _Count:
    """Counts nodes, each as often as aliases repeat it.

    Attributes:
        nodes: The nodes so far.
        open: The anchors of the collections that have begun, and how many nodes there were before each.
    """

    def __init__(self) -> None:
        self.nodes = 0
        self.open: list[tuple[str | None, int]] = []
        self._sizes: dict[str | None, int] = {}

    def take(self, event: yaml.Event) -> None:
        """Count what an event begins or ends."""
        if isinstance(event, yaml.AliasEvent):
            self.nodes += self._sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = self.open.pop()
            self._sizes[anchor] = self.nodes - before
        elif isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.CollectionStartEvent):
                self.open.append((event.anchor, self.nodes))
            self.nodes += 1

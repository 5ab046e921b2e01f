"""Limits what a YAML text may cost in memory, by counting its events before it is loaded. Events take no memory.

A YAML node can be two bytes long and take hundreds of bytes in memory. An alias repeats the nodes of its anchor, so
a few lines can expand to more nodes than fit into any memory ("billion laughs").
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
    """Return why a text must not be loaded, as the end of a sentence about the file; `None` if it may.

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
    """Counts nodes. A node counts once for each alias that repeats it.

    Attributes:
        nodes: The nodes so far.
        open: The collections that have begun but not ended: each one's anchor, and the node count in front of it.
    """

    def __init__(self) -> None:
        self.nodes = 0
        self.open: list[tuple[str | None, int]] = []
        self._sizes: dict[str | None, int] = {}

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent):
            # An alias to a scalar, or to a collection that has not ended, counts as one node.
            self.nodes += self._sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = self.open.pop()
            self._sizes[anchor] = self.nodes - before
        elif isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.CollectionStartEvent):
                self.open.append((event.anchor, self.nodes))
            self.nodes += 1

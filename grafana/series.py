"""How rules and alerts name the series that they read: a metric of the name table and its matchers.

series(LORA_OPERATIONS, operation="load")  ->  kthena_runtime_lora_operations_total{operation="load"}
series("up", job=Regex("a|b"))             ->  up{job=~"a|b"}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exporter.telemetry.names import Description

__all__ = ["ON_TARGET", "TARGET", "Regex", "one_of", "series"]

# What tells one scraped runtime from another. The instance alone does not: the next pod gets the address of one that
# is gone, and clusters have the same addresses. Where a label is missing, it is so on both sides of a join.
TARGET: Final = ("cluster", "job", "namespace", "pod", "instance")
ON_TARGET: Final = f"on ({', '.join(TARGET)})"


class Regex(str):
    """A regular expression in RE2's syntax, matched against the whole value."""

    __slots__ = ()


def one_of(*values: str) -> Regex:
    """Return what matches any of these values; none may hold a character that regular expressions know."""
    return Regex("|".join(values))


def series(metric: Description | str, /, **matchers: str) -> str:
    """Return a selector: equality for plain values, `=~` for a `Regex`."""
    name = metric if isinstance(metric, str) else metric.name
    shown = (f'{label}{"=~" if isinstance(value, Regex) else "="}"{value}"' for label, value in matchers.items())
    return f"{name}{{{', '.join(shown)}}}" if matchers else name

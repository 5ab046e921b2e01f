"""The report of a dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storage.cli.display import size_text
from storage.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["dry_run_text"]


def dry_run_text(plan: Mapping[str, Any], removals: Sequence[Mapping[str, Any]], directory: str) -> str:
    """Return a report of what a download would fetch, and of each file that it would remove or overwrite.

    Args:
        plan: The `planned` event.
        removals: The `removal` events.
        directory: The target directory, as the user gave it.
    """
    left = plan["fetch_bytes"] - plan["resumed_bytes"]
    lines = [
        f"{plan['source']} {plan['revision']}".rstrip(),
        f"{plan['files']} files, {plan['bytes']} bytes",
        f"to fetch: {plan['fetch_files']} files, {left} bytes ({size_text(left)})",
        f"unchanged: {plan['kept_files']} files, {plan['kept_bytes']} bytes",
        f"room in {directory}: {plan['free_bytes']} bytes ({size_text(plan['free_bytes'])}), enough",
        f"to remove or overwrite: {len(removals)} files, {sum(each['size'] for each in removals)} bytes",
        *(f"  {'overwrite' if each['overwritten'] else 'remove'} {each['file']}" for each in removals),
    ]
    return "".join(f"{printable(line)}\n" for line in lines)

"""The key under which an engine's prefix cache stores an adapter's blocks (docs/adr/0015).

vLLM uses the adapter's name up to 0.30, and its name and directory from 0.31 on.
Neither includes the content. SGLang gives each load an identity of its own.
An unreadable version counts as the oldest, because a needless reset is better than a wrong answer.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

__all__ = ["CacheKey", "vllm_key"]

_VERSION: Final = re.compile(
    r"v?(?P<release>\d{1,6}(\.\d{1,6}){1,3})(?P<pre>(\.?(a|b|rc|dev|post)\d{1,9}){0,3})(\+[a-z0-9.]{1,80})?", re.ASCII
)
_BY_PATH: Final = (0, 31)


class CacheKey(Enum):
    """What two loads must have in common to share blocks."""

    NAME = "name"
    NAME_AND_PATH = "name and path"
    LOAD = "load"


def vllm_key(version: str) -> CacheKey:
    """Return the key of a vLLM version; `version` may be any text."""
    found = _VERSION.fullmatch(version.strip())
    if not found:
        return CacheKey.NAME
    release = tuple(map(int, found["release"].split(".")))
    # A pre-release or development build of 0.31.0 may be older than the change.
    is_before = (
        release[:2] == _BY_PATH and not any(release[2:]) and found["pre"].lstrip(".")[:1] in {"a", "b", "r", "d"}
    )
    return CacheKey.NAME if release < _BY_PATH or is_before else CacheKey.NAME_AND_PATH

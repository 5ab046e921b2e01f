"""What an engine's prefix cache knows an adapter's blocks by.

vLLM takes an adapter's name up to 0.30, and its name and directory from 0.31 on.
Neither looks at the content. SGLang gives each load an identity of its own.
A version that cannot be read counts as the oldest.
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
    """The part of an adapter that two loads must share to share blocks."""

    NAME = "name"
    NAME_AND_PATH = "name and path"
    LOAD = "load"


def vllm_key(version: str) -> CacheKey:
    """Return what a vLLM of this version uses."""
    found = _VERSION.fullmatch(version.strip())
    if not found:
        return CacheKey.NAME
    release = tuple(map(int, found["release"].split(".")))
    # What was built on the way to 0.31.0 may be older than the change.
    is_before = (
        release[:2] == _BY_PATH and not any(release[2:]) and found["pre"].lstrip(".")[:1] in {"a", "b", "r", "d"}
    )
    return CacheKey.NAME if release < _BY_PATH or is_before else CacheKey.NAME_AND_PATH

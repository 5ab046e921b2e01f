"""Every engine version that the rules cover: its page, and what must come of it.

What a version exposes and where its standard metrics come from are two
separate statements, both taken from the engines' releases; neither is made
from the rules they are there to test.
"""

from __future__ import annotations

from simulators.versions.nvidia import NVIDIA_PAGES
from simulators.versions.others import OTHER_PAGES
from simulators.versions.ray import RAY_PAGES
from simulators.versions.sglang import SGLANG_PAGES
from simulators.versions.table import EXTENDED, ORDERED, VersionPage
from simulators.versions.vllm import VLLM_PAGES

__all__ = ["EXTENDED", "ORDERED", "PAGES", "SGLANG_PAGES", "VLLM_PAGES", "VersionPage"]

PAGES: tuple[VersionPage, ...] = (*VLLM_PAGES, *SGLANG_PAGES, *NVIDIA_PAGES, *RAY_PAGES, *OTHER_PAGES)

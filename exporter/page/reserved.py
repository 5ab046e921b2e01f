"""The names that belong to the runtime: a family of the engine under this prefix is left out of the page."""

from typing import Final

__all__ = ["OWN_PREFIX"]

OWN_PREFIX: Final = "kthena_runtime_"

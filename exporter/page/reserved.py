"""The prefix of the runtime's own metrics; an engine family with this prefix is dropped from the page."""

from typing import Final

__all__ = ["OWN_PREFIX"]

OWN_PREFIX: Final = "kthena_runtime_"

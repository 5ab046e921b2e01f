"""Kthena Runtime: the sidecar beside an LLM inference engine."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("kthena-runtime")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+source"

"""Kthena Runtime: the sidecar beside an LLM inference engine."""

__all__ = ["__version__"]

# The one place of the version: pyproject.toml reads it. Asking the installed package's metadata takes 50 ms.
__version__ = "0.1.0"

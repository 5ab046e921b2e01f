"""Kthena Runtime: a sidecar for an LLM inference engine.

It exports the engine's metrics under standard names, publishes the engine's KV-cache
events to Redis for Kthena's router, and brings models and LoRA adapters to the engine.
"""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("kthena-runtime")
except PackageNotFoundError:  # the source tree is used without an installation
    __version__ = "0+source"

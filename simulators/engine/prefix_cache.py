"""vLLM's prefix cache, as far as answers of adapters show it: what was computed once is served again.

A real engine answers from cached blocks that it finds by an adapter's name, or by
name and path from 0.31 on. Here an answer names the weights that it was computed with.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from simulators.engine.http import Answer

if TYPE_CHECKING:
    from simulators.engine.http import Call
    from simulators.engine.lora import Adapters

__all__ = ["PrefixCache"]


class PrefixCache:
    """The cache, and the routes that use and reset it.

    Attributes:
        blocks: The weights that a cached answer was computed with, by name or by name and path.
        busy: Whether requests are running: a reset is refused then.
        says: Whether a reset says how it went, as vLLM does since 0.26.
        resets: Resets that were done.
    """

    def __init__(self, adapters: Adapters, *, by_path: bool) -> None:
        """Cache what `adapters` answer."""
        self._adapters = adapters
        self._by_path = by_path
        self.blocks: dict[tuple[str, str], str] = {}
        self.busy = False
        self.says = True
        self.resets = 0

    def complete(self, call: Call) -> Answer:
        """Answer with the weights that the answer comes from."""
        name = json.loads(call.body)["model"]
        path = self._adapters.loaded.get(name)
        if path is None:
            return Answer.json(404, {"error": {"message": f"The model `{name}` does not exist.", "code": 404}})
        key = (name, path if self._by_path else "")
        text = self.blocks.setdefault(key, self._adapters.weights[name])
        return Answer.json(200, {"choices": [{"text": text}]})

    def reset(self, _call: Call) -> Answer:
        """Forget all blocks unless some are in use."""
        if not self.busy:
            self.blocks.clear()
            self.resets += 1
        return Answer.json(200, {"success": not self.busy}) if self.says else Answer(200)

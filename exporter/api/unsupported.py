"""Routes that are not available for the configured engine: LoRA adapters of engines without such an API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora import codes
from lora.errors import EngineRefusedError

if TYPE_CHECKING:
    from falcon import Request, Response

__all__ = ["UnsupportedResource"]


class UnsupportedResource:
    """Refuses every request with the code `unsupported_engine`."""

    def __init__(self, detail: str) -> None:
        """Prepare the answer; `detail` names the engines that are supported."""
        self._detail = detail

    def on_get(self, req: Request, resp: Response, **params: str) -> None:
        raise EngineRefusedError(codes.UNSUPPORTED_ENGINE, self._detail)

    on_head = on_get
    on_post = on_get

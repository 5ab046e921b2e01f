"""Routes of something that this engine does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora import codes
from lora.errors import EngineRefusedError

if TYPE_CHECKING:
    from falcon import Request, Response

__all__ = ["UnsupportedResource"]


class UnsupportedResource:
    """Says so, whatever is asked."""

    def __init__(self, detail: str) -> None:
        """Answer with this sentence."""
        self._detail = detail

    def on_get(self, req: Request, resp: Response, **params: str) -> None:
        """Refuse."""
        raise EngineRefusedError(codes.UNSUPPORTED_ENGINE, self._detail)

    on_head = on_get
    on_post = on_get

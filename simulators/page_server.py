"""Many metrics pages on one port, each at its own path, none ever changing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from simulators.engine.http import Answer, HttpServer
from simulators.misbehaving.pages import TEXT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simulators.engine.http import Call, Exchange

__all__ = ["PageServer"]


class PageServer:
    """Serves `pages`, path to body, while its ``with`` block runs."""

    def __init__(self, pages: Mapping[str, bytes], *, content_type: str = TEXT) -> None:
        self._pages = pages
        self._content_type = content_type

    def __enter__(self) -> Self:
        self._server = HttpServer(self, "127.0.0.1", 0)
        self.url = self._server.url
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def answer(self, call: Call) -> Answer:
        if call.path not in self._pages:
            return Answer.text(404, "no such page\n")
        return Answer(200, self._pages[call.path], self._content_type)

    def on_answered(self, exchange: Exchange) -> None:
        """Count nothing."""

"""GET /metrics: the engine's page, the standard families, and the runtime's own families.

    # TYPE vllm:num_requests_waiting gauge                                 the engine's page, byte for byte
    vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
    # TYPE kthena:num_requests_waiting gauge                               the standard families
    kthena:num_requests_waiting{engine="0",model_name="m"} 3.0
    # TYPE kthena_runtime_engine_up gauge                                  the runtime's own families
    kthena_runtime_engine_up 1.0

The format is always text 0.0.4 (docs/adr/0004).
"""

from __future__ import annotations

from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Final

from exporter.api.chunks import Chunks
from exporter.api.errors import problem
from exporter.engine.client import LOOP_HEADER
from exporter.engine.room import Room
from exporter.page.parse import parse_page
from exporter.page.text_format import CONTENT_TYPE
from exporter.page.writer import MIN_COMPRESSED, accepts_gzip, compress, write, write_selected
from exporter.telemetry.runtime import scrape_families

if TYPE_CHECKING:
    from falcon import Request, Response

    from exporter.engine.collector import EngineCollector
    from exporter.engine.result import Scrape
    from exporter.telemetry.runtime import Telemetry

__all__ = ["MetricsResource", "scrape_budget"]

TIMEOUT_HEADER: Final = "X-Prometheus-Scrape-Timeout-Seconds"
# Seconds for sending the answer, before Prometheus gives up.
TIMEOUT_OFFSET: Final = 0.5
# The same maximum as for --request-timeout. A lock's timeout has an upper limit, and a client may send any number.
MAX_BUDGET: Final = 3600.0

# Smaller bodies are copied into the server's buffers; larger ones are shared between clients (`Chunks`).
_SHARED_SIZE: Final = 64 * 1024
# How long an answer waits for room for its compressed copy. After that, it is sent uncompressed (docs/adr/0018).
_PACKING_SECONDS: Final = 2.0

_NO_PAGE: Final = parse_page(b"")


class MetricsResource:
    """Scrapes the engine for each request, or shares a scrape in flight; serves no earlier page."""

    public: Final = True

    def __init__(
        self, collector: EngineCollector, telemetry: Telemetry, *, instance: str, raw: bool, packing: Room | None = None
    ) -> None:
        """Prepare the resource.

        Args:
            collector: Scrapes the engine.
            telemetry: The runtime's own families.
            instance: The id of this process, with which it recognises its own scrape.
            raw: Whether the engine's own families are exported.
            packing: The room for compressed answers.
        """
        self._collector = collector
        self._telemetry = telemetry
        self._instance = instance
        self._raw = raw
        self._packing = packing or Room()

    def on_get(self, req: Request, resp: Response) -> None:
        """Answer 200 even if the engine cannot be read; `kthena_runtime_engine_up` is then 0.

        Only a scrape of the runtime by itself is refused, with 508.
        """
        if req.get_header(LOOP_HEADER) == self._instance:
            detail = "The runtime is scraping itself: point --engine-base-url at the engine."
            problem(resp, HTTPStatus.LOOP_DETECTED, detail)
            return
        scrape = self._collector.scrape(scrape_budget(req.get_header(TIMEOUT_HEADER)))
        page = scrape.page if self._raw else _NO_PAGE
        # Standard families that the engine exposes itself have no twin, so they are taken from its page.
        taken = () if self._raw else filter(None, map(scrape.page.get, scrape.standard.taken))
        families = chain(taken, scrape.standard.families, scrape_families(scrape), self._telemetry.families())
        names = req.get_param_as_list("name[]")
        chunks = write_selected(page, families, set(names)) if names else write(page, families)
        resp.content_type = CONTENT_TYPE
        resp.set_header("Vary", "Accept-Encoding")
        self._send(req, resp, chunks, scrape)

    def _send(self, req: Request, resp: Response, chunks: list[bytes | memoryview], scrape: Scrape) -> None:
        """Send the chunks, compressed if the client accepts gzip and there is room for the copy."""
        # `keep` holds the page's bytes in their room until the client has received the answer.
        keep, size = scrape.hold, sum(map(len, chunks))
        if size >= MIN_COMPRESSED and accepts_gzip(req.get_header("Accept-Encoding")):
            packing = self._packing.claim(size, _PACKING_SECONDS)
            if packing is not None:
                chunks, keep = [compress(chunks)], packing
                size = len(chunks[0])
                packing.resize(size)
                resp.set_header("Content-Encoding", "gzip")
        if size < _SHARED_SIZE:
            resp.data = b"".join(chunks)
        else:
            resp.stream = Chunks(chunks, keep)
            resp.content_length = size

    on_head = on_get


def scrape_budget(header: str | None) -> float | None:
    """Return the budget for the engine in seconds, or `None` if the header is missing or not a usable number.

    It is the scraper's timeout less `TIMEOUT_OFFSET`, but at least half the timeout.
    """
    try:
        timeout = float(header or 0)
    except ValueError:
        return None
    return min(max(timeout - TIMEOUT_OFFSET, timeout / 2), MAX_BUDGET) if 0 < timeout < float("inf") else None

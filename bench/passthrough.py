"""The floor: a proxy of the same stack that looks at nothing.

Falcon, waitress and requests, with what is known to make them fast: a prepared
request, one read of the whole body, no compression, and an answer that goes out
from memory in few writes. A runtime cannot cost less than this.

    python -m bench.passthrough PORT URL
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import falcon
import requests
import waitress
from requests.adapters import HTTPAdapter

from bench.process import HOST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from falcon import Request, Response

__all__ = ["THREADS", "Health", "main"]

THREADS = 8


class Health:
    """Answers 200."""

    def on_get(self, req: Request, resp: Response) -> None:
        """Answer without a body."""


class PassThrough:
    """Answers what the engine answers."""

    def __init__(self, url: str) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.mount("http://", HTTPAdapter(pool_maxsize=THREADS))
        request = requests.Request("GET", url, headers={"Accept-Encoding": "identity"})
        self._prepared = self._session.prepare_request(request)

    def on_get(self, req: Request, resp: Response) -> None:
        """Fetch the page and pass it on."""
        with self._session.send(self._prepared, stream=True, timeout=60) as page:
            resp.data = page.raw.read()
            resp.content_type = page.headers["Content-Type"]


def main(arguments: Sequence[str]) -> None:
    """Serve the page at a URL until the process is ended."""
    port, url = arguments
    app = falcon.App()
    app.add_route("/metrics", PassThrough(url))
    app.add_route("/health", Health())
    waitress.serve(
        app, host=HOST, port=int(port), threads=THREADS, outbuf_overflow=256 * 1024 * 1024, send_bytes=1024 * 1024
    )


if __name__ == "__main__":
    main(sys.argv[1:])

"""The forms of the Hub's answers: pages of JSON, errors, and bytes by range."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from werkzeug import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug import Request

__all__ = ["blob", "error", "json_page"]


def error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as the Hub sends it: in its headers, since HEAD has no body."""
    told = {"X-Error-Code": code} if code else {}
    return Response(
        json.dumps({"error": message}),
        status=status,
        headers=dict(headers or {}) | told | {"X-Error-Message": message},
        content_type="application/json; charset=utf-8",
    )


def json_page(request: Request, entries: list[Any], size: int, url: str) -> Response:
    """Return one page of a list, and in its Link header the next."""
    start = int(request.args.get("cursor", "0"))
    response = Response(json.dumps(entries[start : start + size]), content_type="application/json; charset=utf-8")
    if start + size < len(entries):
        arguments = "&".join(f"{name}={value}" for name, value in request.args.items() if name != "cursor")
        response.headers["Link"] = f'<{url}{request.path}?{arguments}&cursor={start + size}>; rel="next"'
    return response


def blob(request: Request, data: bytes, etag: str, headers: Mapping[str, str]) -> Response:
    """Return bytes, or the range of them that is asked for, if the ETag is the one that is wanted."""
    headers = dict(headers) | {"ETag": etag, "Accept-Ranges": "bytes"}
    wanted = request.headers.get("If-Match")
    if wanted not in {None, "*", etag}:
        return Response(status=412, headers=headers)
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if not found:
        return Response(data, headers=headers, content_type="application/octet-stream")
    start, end = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
    if start >= len(data):
        return Response(status=416, headers=headers | {"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], status=206, headers=headers, content_type="application/octet-stream")

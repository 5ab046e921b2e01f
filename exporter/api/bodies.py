"""Decode request bodies into msgspec structs. An error names the path of the field, or the size of the body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import falcon
import msgspec

if TYPE_CHECKING:
    from falcon import Request

__all__ = ["MOST_BYTES", "decode"]

# Usual requests have a few hundred bytes. A decoded body may take a hundred times its size in memory.
MOST_BYTES: Final = 64 * 1024

_T = TypeVar("_T")


def decode(req: Request, form: type[_T]) -> _T:
    """Return the JSON body of a request as a `form`.

    Raises:
        falcon.HTTPBadRequest: The body is not JSON, or does not fit the form (unknown field, wrong type).
        falcon.HTTPContentTooLarge: The body has more than `MOST_BYTES` bytes.
    """
    body = req.bounded_stream.read()
    if len(body) > MOST_BYTES:
        raise falcon.HTTPContentTooLarge(description=f"The body has {len(body):,} bytes; the limit is {MOST_BYTES:,}.")
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        raise falcon.HTTPBadRequest(description=f"The body does not fit: {error}") from None
    except RecursionError:
        raise falcon.HTTPBadRequest(description="The body is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise falcon.HTTPBadRequest(description="The body must be a JSON object.") from None

"""Request bodies: decoded into structs, or refused with the path of the field, or with their size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import falcon
import msgspec

if TYPE_CHECKING:
    from falcon import Request

__all__ = ["MOST_BYTES", "decode"]

# A request without credentials has some hundred bytes; decoded, each can cost a hundred times as much.
MOST_BYTES: Final = 64 * 1024

_T = TypeVar("_T")


def decode(req: Request, form: type[_T]) -> _T:
    """Return the body as a `form`.

    Raises:
        falcon.HTTPBadRequest: It is no JSON, or not of this form.
        falcon.HTTPContentTooLarge: It is longer than any request needs to be.
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

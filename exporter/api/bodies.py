"""Request bodies: decoded into structs, or refused with the path of the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import falcon
import msgspec

if TYPE_CHECKING:
    from falcon import Request

__all__ = ["decode"]

_T = TypeVar("_T")


def decode(req: Request, form: type[_T]) -> _T:
    """Return the body as a `form`.

    Raises:
        falcon.HTTPBadRequest: It is no JSON, or not of this form.
    """
    try:
        return msgspec.json.decode(req.bounded_stream.read(), type=form)
    except msgspec.ValidationError as error:
        raise falcon.HTTPBadRequest(description=f"The body does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise falcon.HTTPBadRequest(description="The body must be a JSON object.") from None

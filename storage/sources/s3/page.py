"""One page of ListObjectsV2, parsed by events: its memory depends on the rows kept, not on the bytes sent (ADR 17)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_plus
from xml.parsers import expat

from storage.errors import NetworkError

__all__ = ["Page", "Row", "read_page"]

_ROOT: Final = "ListBucketResult"
_ROW: Final = "Contents"
# The fields that are read, of the root and of rows.
_FIELDS: Final = frozenset(("EncodingType", "IsTruncated", "NextContinuationToken"))
_ROW_FIELDS: Final = frozenset(("Key", "Size", "ETag"))
_MAX_DEPTH: Final = 8
# A usual page of 1,000 rows has 10,000 elements. Any element takes time to parse.
_MAX_ELEMENTS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a listing."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to ListObjectsV2.

    Attributes:
        rows: Its objects.
        goes_on: Whether there are more pages.
        token: The continuation token for the next page.
    """

    rows: tuple[Row, ...]
    goes_on: bool
    token: str


def read_page(body: bytes | bytearray, what: str) -> Page:
    """Parse a page.

    Raises:
        NetworkError: The body is not a listing, for example the login page of a proxy.
        MemoryError: The parser ran out of memory.
    """
    reader = _Reader()
    try:
        reader.read(body)
        decode = unquote_plus if reader.fields.get("EncodingType") == "url" else str
        rows = tuple(replace(row, key=decode(row.key)) for row in reader.rows)
    except expat.ExpatError as error:
        if error.code == expat.errors.codes[expat.errors.XML_ERROR_NO_MEMORY]:
            raise MemoryError from error
        raise _not_a_page(what) from None
    except ValueError:
        raise _not_a_page(what) from None
    return Page(rows, reader.fields.get("IsTruncated") == "true", reader.fields.get("NextContinuationToken", ""))


def _not_a_page(what: str) -> NetworkError:
    return NetworkError(f"{what}: the answer to the request for a listing is none")


def _row(fields: dict[str, str]) -> Row:
    size = fields.get("Size", "")
    if not size.isascii() or not size.isdigit():
        raise ValueError("not a size")
    return Row(fields.get("Key", ""), int(size), fields.get("ETag", "").strip('"'))


class _Reader:
    """Collects the needed fields of the XML. It ignores namespaces: stores use different ones."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.rows: list[Row] = []
        self._row: dict[str, str] = {}
        self._path: list[str] = []
        self._elements = 0
        self._text: list[str] | None = None

    def read(self, body: bytes | bytearray) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        # A document type can define entities that expand to any size.
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        parser.Parse(body, True)  # noqa: FBT003 - expat's signature

    def _refuse(self, *_: object) -> None:
        raise ValueError("a document type, and with it entities, is no part of a listing")

    def _start(self, name: str, _attributes: object) -> None:
        name = name.rpartition(" ")[2]
        self._path.append(name)
        self._elements += 1
        if self._path[0] != _ROOT or len(self._path) > _MAX_DEPTH or self._elements > _MAX_ELEMENTS:
            raise ValueError("not a listing")
        if self._path == [_ROOT, _ROW]:
            self._row = {}
        self._text = [] if self._target(name) is not None else None

    def _data(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        name = name.rpartition(" ")[2]
        target = self._target(name)
        if target is not None and self._text is not None:
            target[name] = "".join(self._text)
        if self._path == [_ROOT, _ROW]:
            self.rows.append(_row(self._row))
        self._text = None
        self._path.pop()

    def _target(self, name: str) -> dict[str, str] | None:
        """Return the dict for the text of the current element; `None` if the text is not needed."""
        if len(self._path) == 2 and name in _FIELDS:
            return self.fields
        if len(self._path) == 3 and self._path[1] == _ROW and name in _ROW_FIELDS:
            return self._row
        return None

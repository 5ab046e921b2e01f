r"""The journal: which bytes have arrived, so that a killed download can resume.

One JSON array per line, appended after the bytes were written:

    ["model.safetensors", 500000000, "\"5d41-12\"", 0, 4194304]     these bytes have arrived
    ["model.safetensors", 500000000, "\"5d41-12\"", "verified"]      the whole file is verified

A record counts only for the same name, size and validator: nothing of a changed file is
reused. A line that a kill has cut off is skipped.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Final

from storage.disk.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from storage.disk.listing import RemoteFile

__all__ = ["Journal", "Spans", "clipped", "missing"]

VERIFIED: Final = "verified"
# A longer journal than 20,000 files need was not written by a download: it is ignored, and the download starts over.
_MAX_BYTES: Final = 32 << 20
# A journal of this size is rewritten without redundant records.
_COMPACT_BYTES: Final = 1 << 20

Spans = list[tuple[int, int]]
_Key = tuple[str, int, str]


class Journal:
    """The journal of one work directory; safe for threads."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Read the existing journal, and open it for appending unless `read_only` is set."""
        self._path = path
        self._lock = Lock()
        # End by start: a piece that grows stays one span, however often it is recorded.
        self._spans: dict[_Key, dict[int, int]] = {}
        self._verified: set[_Key] = set()
        self._file = -1
        is_torn = self._read()
        if read_only:
            return
        _draft(path).unlink(missing_ok=True)  # left by a worker that was killed during a rewrite
        self._file = _open(path)
        self._size = os.fstat(self._file).st_size
        self._limit = max(_COMPACT_BYTES, self._size)
        if self._size > _MAX_BYTES:
            os.ftruncate(self._file, 0)
            self._size, self._limit = 0, _COMPACT_BYTES
        if is_torn:
            # Otherwise the next record would continue the torn line, and be lost with it.
            self._size += os.write(self._file, b"\n")

    def _read(self) -> bool:
        """Read the existing records; return whether the last line is torn."""
        line = b"\n"
        with suppress(OSError), open_regular(self._path, follow=False) as file:
            if os.fstat(file.fileno()).st_size <= _MAX_BYTES:
                for line in file:
                    self._take(line)
        return not line.endswith(b"\n")

    def _take(self, line: bytes) -> None:
        try:
            name, size, validator, *rest = json.loads(line)
            key = (str(name), int(size), str(validator))
            if rest == [VERIFIED]:
                self._complete(key)
            else:
                start, end = rest
                self._extend(key, int(start), int(end))
        except (ValueError, TypeError, RecursionError):
            return

    def _extend(self, key: _Key, start: int, end: int) -> None:
        spans = self._spans.setdefault(key, {})
        spans[start] = max(end, spans.get(start, 0))

    def _complete(self, key: _Key) -> None:
        self._verified.add(key)
        if _merge(self._spans.get(key, {}).items()) == [(0, key[1])]:
            del self._spans[key]  # the spans of thousands of complete files would take megabytes

    def spans(self, file: RemoteFile) -> Spans:
        """Return the ranges of a file that have arrived, merged and in order."""
        with self._lock:
            if _key(file) in self._verified and _key(file) not in self._spans:
                return [(0, file.size)] if file.size else []
            spans = self._spans.get(_key(file), {}).items()
            return _merge(span for span in spans if 0 <= span[0] < span[1] <= file.size)

    def is_verified(self, file: RemoteFile) -> bool:
        """Whether the whole file has arrived and was verified."""
        with self._lock:
            return _key(file) in self._verified

    def add(self, file: RemoteFile, start: int, end: int) -> None:
        """Record that the bytes from `start` up to `end` were written."""
        with self._lock:
            self._extend(_key(file), start, end)
            self._append([*_key(file), start, end])

    def verified(self, file: RemoteFile) -> None:
        """Record that the whole file was verified."""
        with self._lock:
            self._complete(_key(file))
            self._append([*_key(file), VERIFIED])

    def forget(self, file: RemoteFile) -> None:
        """Delete all records of a file."""
        with self._lock:
            self._spans.pop(_key(file), None)
            self._verified.discard(_key(file))
            # The journal is rewritten, because an appended line that revokes records could be torn.
            if not self._compact():  # the disk is full: rewrite in place, in the space that this frees
                os.ftruncate(self._file, 0)
                self._size = 0
                for record in self._records():
                    self._append(record)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            os.close(self._file)
            self._file = -1

    def _append(self, record: list[object]) -> None:
        line = _line(record)
        try:
            whole = os.write(self._file, line) == len(line)
        except OSError:
            whole = False
        if whole:
            self._size += len(line)
            if self._size > self._limit:
                self._compact()
        else:  # the disk is full: bytes that are not recorded are fetched again, which does no other harm
            with suppress(OSError):
                # Remove the part of a line that was written, so that the next record starts on its own line.
                os.ftruncate(self._file, self._size)

    def _records(self) -> list[list[object]]:
        spans = [[*key, start, end] for key, spans in self._spans.items() for start, end in _merge(spans.items())]
        return [*spans, *([*key, VERIFIED] for key in self._verified)]

    def _compact(self) -> bool:
        """Rewrite the journal without redundant records; return whether that succeeded."""
        data = b"".join(map(_line, self._records()))
        # No further rewrite before the journal has doubled, even if this one fails.
        self._limit = max(_COMPACT_BYTES, 2 * self._size)
        new = _draft(self._path)
        try:
            new.unlink(missing_ok=True)
            file = _open(new)
        except OSError:
            return False
        try:
            whole = os.write(file, data) == len(data)
            if whole:
                new.replace(self._path)
        except OSError:
            whole = False
        if whole:
            file, self._file = self._file, file
            self._size, self._limit = len(data), max(_COMPACT_BYTES, 2 * len(data))
        else:
            with suppress(OSError):
                new.unlink(missing_ok=True)
        os.close(file)
        return whole


def _draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def _line(record: Sequence[object]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _key(file: RemoteFile) -> _Key:
    return (file.path, file.size, file.validator)


def _merge(spans: Iterable[tuple[int, int]]) -> Spans:
    merged: Spans = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def missing(spans: Spans, size: int, part_size: int) -> Spans:
    """Return the ranges of a file that `spans` lack, in pieces of at most `part_size` bytes."""
    edges = [0, *(edge for span in spans for edge in span), size]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    return [(at, min(at + part_size, end)) for start, end in gaps for at in range(start, end, part_size)]


def clipped(spans: Spans, size: int) -> Spans:
    """Cut `spans` to a file's actual size: after a crash of the machine it may be shorter than recorded."""
    return [(start, min(end, size)) for start, end in spans if start < size]

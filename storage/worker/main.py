"""The worker program: reads one request from standard input, writes events to standard output, one per line.

    echo '{"source": "s3://bucket/model", "output_dir": "/models/m"}' | python -m storage.worker

It exits with the exit code of its error (`storage.errors`), after a `failed` event with the same code. On SIGTERM it
releases its locks and exits; bytes that have arrived stay for the next run. If the request says `follow_parent`, the
end of standard input means that the parent is dead, and the worker exits, too.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final, NoReturn

from storage.errors import CancelledError, DeniedError, NoSpaceError, OutOfMemoryError, StorageError, TargetError
from storage.memory import confine, is_exhaustion, release
from storage.request.download import DownloadRequest
from storage.worker.download import run
from storage.worker.events import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

__all__ = ["main"]

logger: Final = logging.getLogger(__name__)

_OS_ERRORS: Final[Mapping[int, type[StorageError]]] = {
    errno.ENOSPC: NoSpaceError,
    errno.EDQUOT: NoSpaceError,
    errno.EACCES: DeniedError,
    errno.EPERM: DeniedError,
    errno.EROFS: DeniedError,
    errno.ENOTDIR: TargetError,
    errno.EISDIR: TargetError,
    errno.ELOOP: TargetError,
}


def main() -> int:
    """Carry out one request; return the exit code."""
    # The worker is not in the terminal's foreground group (ADR 9): writing to the terminal must not stop it.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    say = _writer()
    try:
        try:
            _on_signals(_end)
            _run(sys.stdin.readline(), say)
        finally:  # from here on the worker only reports how it ended: no signal may interrupt that
            _on_signals(signal.SIG_IGN)
    except StorageError as error:
        return _fail(error, say)
    except OSError as error:
        if is_exhaustion(error):
            return _fail(_unexpected(error), say)
        kind = _OS_ERRORS.get(error.errno or 0, StorageError)
        return _fail(kind(f"{error.strerror or error}: {error.filename or 'the file system'}"), say)
    # A MemoryError can arrive here from any line, so exhaustion is told apart from a defect in `_unexpected`.
    except Exception as error:  # noqa: BLE001 - the process's outermost frame
        return _fail(_unexpected(error), say)
    return 0


def _run(line: str, say: Callable[[dict[str, Any]], None]) -> None:
    request = DownloadRequest.from_json(line)
    confine(request.memory)
    if request.follow_parent:
        Thread(target=_follow_parent, name="follow-parent", daemon=True).start()
    run(request, Reporter(say))


def _writer() -> Callable[[dict[str, Any]], None]:
    # Events get their own descriptor, and 1 becomes standard error: what a library prints must not mix with events.
    output = os.dup(1)
    os.dup2(2, 1)
    lock = Lock()

    def say(event: dict[str, Any]) -> None:
        line = memoryview(json.dumps(event).encode() + b"\n")
        with lock:
            while line:
                line = line[os.write(output, line) :]

    return say


def _unexpected(error: Exception) -> StorageError:
    if is_exhaustion(error):
        release()
        return OutOfMemoryError(
            "the download needs more memory than --worker-memory allows: raise it, and the container's limit with it, "
            "or use fewer workers (--max-workers, max_workers)"
        )
    logger.error("the worker failed", exc_info=error)
    return StorageError(f"unexpected {type(error).__name__}")


def _fail(error: StorageError, say: Callable[[dict[str, Any]], None]) -> int:
    with suppress(BrokenPipeError):  # the parent is gone
        say({"event": "failed", **error.fields()})
    return error.exit_code


def _on_signals(action: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, action)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    _on_signals(signal.SIG_IGN)  # a second signal must not interrupt the cleanup that this one starts
    raise CancelledError("the download was cancelled; what has arrived stays for the next run")


def _follow_parent() -> None:
    sys.stdin.read()
    # Like SIGKILL, without cleanup: the next run sees immediately that this lock's holder is dead, and the journal says
    # what has arrived.
    os._exit(CancelledError.row.exit_code or 1)

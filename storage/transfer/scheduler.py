"""The scheduler: decides which worker fetches which piece of which file, until all files are in the tree.

Workers first take pieces of different files, and then share the pieces of large files. An
interrupted piece resumes at its next byte, after a pause. A file that changes at the source
starts over. A file with a wrong digest is fetched once more, and then discarded.
"""

from __future__ import annotations

from threading import Condition, Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final

from storage.disk.digests import mismatch
from storage.disk.names import make_parents
from storage.errors import ChangedError, CorruptError
from storage.request.retries import Retry
from storage.transfer.partial_file import PartialFile
from storage.transfer.range_request import Changed, RangeRequests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.disk.listing import Digest, RemoteFile
    from storage.disk.staging import Staging
    from storage.transfer.http_client import Transport
    from storage.transfer.origin import Origin
    from storage.transfer.partial_file import Piece

__all__ = ["MAX_TRIES", "PART_SIZE", "Scheduler"]

PART_SIZE: Final = 64 << 20
MAX_TRIES: Final = 8
# Seconds between two journal records of the progress.
MARK_SECONDS: Final = 0.25
# Seconds that running requests have to end. Some may wait for an answer that never comes.
_END_SECONDS: Final = 1.0
# Changes of one file that are tolerated before the download fails.
_RESTARTS: Final = 3


class Scheduler:
    """Fetches the files of one download. `run` may be called once."""

    def __init__(
        self,
        origin: Origin,
        transport: Transport,
        staging: Staging,
        *,
        workers: int,
        part_size: int = PART_SIZE,
        tries: int = MAX_TRIES,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            origin: Signs requests, and knows digests and changes of files.
            transport: Sends requests.
            staging: The tree, the journal and the observer.
            workers: Concurrent requests.
            part_size: Maximum bytes of a piece.
            tries: Consecutive failed attempts of a request before the download fails.
        """
        self._origin = origin
        self._staging = staging
        self._observer = staging.observer
        self._workers = workers
        self._part_size = part_size
        self._stopping = Event()
        self._requests = RangeRequests(
            origin, transport, staging.observer, self._stopping, tries=tries, workers=workers
        )
        # Guards the fields below, except what a partial file guards itself.
        self._condition = Condition()
        self._waiting: list[RemoteFile] = []
        self._partials: list[PartialFile] = []
        self._restarts: dict[str, int] = {}
        self._rejected: set[str] = set()
        self._done: dict[str, RemoteFile] = {}
        self._error: BaseException | None = None

    def run(self, files: Sequence[RemoteFile]) -> list[RemoteFile]:
        """Fetch files, and return them as they arrived: a file that changed meanwhile is the new one.

        Raises:
            StorageError: A file cannot be fetched. What has arrived stays for the next run.
        """
        self._waiting = sorted(files, key=lambda file: file.size)  # taken from the end: the largest first
        pieces = sum(-(-file.size // self._part_size) or 1 for file in files)
        threads = [Thread(target=self._work, name=f"fetch-{n}", daemon=True) for n in range(min(self._workers, pieces))]
        started: list[Thread] = []
        try:
            for thread in threads:
                thread.start()
                started.append(thread)
            for thread in threads:
                while thread.is_alive():
                    thread.join(MARK_SECONDS)
                    self._mark()
        finally:
            # Also if a signal ends the wait: no thread may write after this.
            self._stopping.set()
            self._mark()
            deadline = monotonic() + _END_SECONDS
            for thread in started:
                thread.join(max(deadline - monotonic(), 0.0))
        if self._error:
            raise self._error
        return [self._done[file.path] for file in files]

    def _mark(self) -> None:
        with self._condition:
            partials = list(self._partials)
        for partial in partials:
            partial.mark()

    def _work(self) -> None:
        partial: PartialFile | None = None
        try:
            while claim := self._claim(partial):
                partial, piece = claim
                self._fetch(partial, piece)
        except BaseException as error:  # noqa: BLE001 - the thread's outermost frame: run() raises it
            with self._condition:
                self._error = self._error or error
                self._stopping.set()
                self._condition.notify_all()

    def _claim(self, current: PartialFile | None) -> tuple[PartialFile, Piece] | None:
        """Return the next piece for a worker: of its current file, of a new file, or of the file with most pieces left.

        `None` if nothing is left, or if the scheduler stops.
        """
        with self._condition:
            while not self._stopping.is_set():
                partial = current if current and current.pending and not current.abandoned else self._choose()
                if partial:
                    return partial, partial.take()
                if not any(each.under_way for each in self._partials):
                    return None
                # Others are still fetching. A file that starts over may bring new work.
                self._condition.wait()
        return None

    def _choose(self) -> PartialFile | None:
        if self._waiting:
            return self._open(self._waiting.pop())
        return max((each for each in self._partials if each.pending), key=lambda each: len(each.pending), default=None)

    def _open(self, file: RemoteFile) -> PartialFile:
        partial = PartialFile(file, make_parents(self._staging.tree, file.path), self._staging, self._part_size)
        self._partials.append(partial)
        return partial

    def _fetch(self, partial: PartialFile, piece: Piece) -> None:
        try:
            self._requests.fetch(partial, piece)
            partial.sync()
        except Changed as change:
            if not partial.abandoned:
                self._start_over(partial, change.detail)
        with self._condition:
            last = partial.release(piece)
        # Not under the condition: hashing the rest of a large file takes seconds.
        if last and not partial.abandoned and not self._stopping.is_set():
            self._finish(partial)
        with self._condition:
            if last or partial.abandoned:
                self._drop(partial)
            self._condition.notify_all()

    def _drop(self, partial: PartialFile) -> None:
        if not partial.under_way:
            partial.close()
            if partial in self._partials:
                self._partials.remove(partial)

    def _finish(self, partial: PartialFile) -> None:
        """Verify a complete file, and note it as done."""
        file = partial.file
        partial.learn_digest(lambda: self._origin.digest(file, None))
        digest = partial.digest
        if digest:
            actual = partial.hexdigest()
            if actual != digest.value and digest.certain:
                self._reject(partial, mismatch(file.path, digest, actual))
                return
            # A digest with a guessed part size that does not match proves nothing: the manifest gets none.
            digest = digest if actual == digest.value else None
        self._staging.journal.verified(file)
        done = _with_digest(file, digest)
        self._done[file.path] = done
        self._observer.on_verified(done)

    def _reject(self, partial: PartialFile, error: CorruptError) -> None:
        # Once more from the first byte: after a crash of the machine, recorded bytes may be lost.
        with self._condition:
            again = partial.file.path not in self._rejected
            self._rejected.add(partial.file.path)
        if again:
            self._start_over(partial, error.message)
            return
        partial.discard()
        raise error

    def _start_over(self, partial: PartialFile, detail: str) -> None:
        path = partial.file.path
        with self._condition:
            self._restarts[path] = self._restarts.get(path, 0) + 1
            if partial.abandoned:
                return
            partial.abandoned = True
        partial.discard()
        if self._restarts[path] > _RESTARTS:
            raise ChangedError(f"{path} was another at each of {_RESTARTS + 1} tries: {detail}")
        self._observer.on_retry(path, Retry.CHANGED, detail, 0.0)
        self._observer.on_bytes(path, -partial.arrived)
        file = self._origin.refresh(partial.file)
        # Otherwise the file would start over again and again, since each listing says the same.
        if file.validator == partial.file.validator and file.size != partial.file.size:
            sizes = f"{partial.file.size} bytes in the listing, {file.size} now"
            raise CorruptError(f"{path}: the source tells two lengths for the same content: {sizes}")
        with self._condition:
            self._waiting.append(file)
            self._condition.notify_all()


def _with_digest(file: RemoteFile, digest: Digest | None) -> RemoteFile:
    return type(file)(file.path, file.size, file.validator, file.origin, digest)

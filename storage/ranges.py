"""The byte engine: files by ranged GETs, several at once and in pieces, into a tree.

Workers take the pieces of different files first, then share the pieces of the
large ones. A piece that breaks off goes on from its last byte, after a pause.
A file that changes at the source starts over; a file whose digest is wrong goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Condition, Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from storage.digests import mismatch
from storage.errors import ChangedError, CorruptError, StorageError
from storage.fetching import Changed, Fetching
from storage.growth import Growth
from storage.names import make_parents

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from storage.plan import Digest, Listing, RemoteFile
    from storage.staging import Staging
    from storage.transport import Transport

__all__ = ["MAX_TRIES", "PART_SIZE", "Engine", "Origin", "Request"]

PART_SIZE: Final = 64 << 20
MAX_TRIES: Final = 8
# Seconds between two records of what has arrived.
MARK_SECONDS: Final = 0.25
# Seconds that requests under way have to end, of which some may wait for an answer.
_END_SECONDS: Final = 1.0
_RESTARTS: Final = 3


@dataclass(frozen=True, slots=True)
class Request:
    """How to ask for a file.

    Attributes:
        url: Its address.
        headers: Sent to that address only, never to another host.
        etag: What the answer's ETag must be, when the address is not redirected.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    etag: str | None = None


class Origin(Protocol):
    """A source that serves files over HTTP."""

    def listing(self) -> Listing:
        """List all files."""

    def request(self, file: RemoteFile) -> Request:
        """Return a request for a file, signed now."""

    def digest(self, file: RemoteFile, headers: Mapping[str, str] | None) -> Digest | None:
        """Return what a file must add up to, as the listing or the headers of an answer say."""

    def refresh(self, file: RemoteFile) -> RemoteFile:
        """Return what a file is by now, as it is not what the listing said."""

    def explain(
        self, file: RemoteFile, status: int, headers: Mapping[str, str], body: bytes
    ) -> tuple[StorageError, bool]:
        """Return the error that an answer means, and whether a new signature may help."""


class Engine:
    """Fetches the files of one download."""

    def __init__(  # noqa: PLR0913 - collaborators, and three numbers by name
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
            origin: Signs requests and says what files are.
            transport: Sends them.
            staging: Where the files grow.
            workers: How many requests run at once.
            part_size: Bytes of a piece at most.
            tries: How often a request is made in vain before it is given up.
        """
        self._origin = origin
        self._staging = staging
        self._observer = staging.observer
        self._workers = workers
        self._part_size = part_size
        self._stopping = Event()
        self._fetching = Fetching(origin, transport, staging.observer, self._stopping, tries=tries, workers=workers)
        self._condition = Condition()
        self._waiting: list[RemoteFile] = []
        self._growing: list[Growth] = []
        self._restarts: dict[str, int] = {}
        self._done: dict[str, RemoteFile] = {}
        self._error: BaseException | None = None

    def run(self, files: Sequence[RemoteFile]) -> list[RemoteFile]:
        """Fetch files and return them as they came: a file that changed meanwhile is the new one.

        Raises:
            StorageError: One of them cannot be had; what is there stays for the next run.
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
                    self._fetching.mark()
        finally:
            # Also when a signal ends the wait: no thread writes on after that.
            self._stopping.set()
            self._fetching.mark()
            deadline = monotonic() + _END_SECONDS
            for thread in started:
                thread.join(max(deadline - monotonic(), 0.0))
        if self._error:
            raise self._error
        return [self._done[file.path] for file in files]

    def _work(self) -> None:
        growth: Growth | None = None
        try:
            while claim := self._claim(growth):
                growth, (start, end) = claim
                self._fetch(growth, start, end)
        except BaseException as error:  # noqa: BLE001 - the thread's outermost frame: run() raises it
            with self._condition:
                self._error = self._error or error
                self._stopping.set()
                self._condition.notify_all()

    def _claim(self, current: Growth | None) -> tuple[Growth, tuple[int, int]] | None:
        """Return the next piece for a worker: of its own file, of a new one, of the one with most left."""
        with self._condition:
            while not self._stopping.is_set():
                growth = current if current and current.pending and not current.abandoned else self._choose()
                if growth:
                    growth.active += 1
                    return growth, growth.take()
                if not any(each.active for each in self._growing):
                    return None
                self._condition.wait()
        return None

    def _choose(self) -> Growth | None:
        if self._waiting:
            return self._open(self._waiting.pop())
        return max((each for each in self._growing if each.pending), key=lambda each: len(each.pending), default=None)

    def _open(self, file: RemoteFile) -> Growth:
        growth = Growth(file, make_parents(self._staging.tree, file.path), self._staging.journal, self._part_size)
        self._growing.append(growth)
        if growth.resumed:
            self._observer.on_bytes(file.path, growth.resumed)
        return growth

    def _fetch(self, growth: Growth, start: int, end: int) -> None:
        changed = False
        try:
            self._fetching.fetch(growth, start, end)
            growth.sync()
        except Changed as change:
            changed = not growth.abandoned
            if changed:
                self._start_over(growth, change.detail)
        with self._condition:
            growth.active -= 1
            last = not growth.active and not growth.pending
        if last and not growth.abandoned and not self._stopping.is_set():
            self._finish(growth)
        with self._condition:
            if last or growth.abandoned:
                self._drop(growth)
            self._condition.notify_all()

    def _drop(self, growth: Growth) -> None:
        if not growth.active:
            growth.close()
            if growth in self._growing:
                self._growing.remove(growth)

    def _finish(self, growth: Growth) -> None:
        """Check a file that is whole, and note it as done."""
        file = growth.file
        growth.learn_digest(lambda: self._origin.digest(file, None))
        digest = growth.digest
        if digest:
            actual = growth.hexdigest()
            if actual != digest.value and digest.certain:
                self._reject(growth, mismatch(file.path, digest, actual))
                return
            digest = digest if actual == digest.value else None
        self._staging.journal.verified(file)
        done = _with_digest(file, digest)
        self._done[file.path] = done
        self._observer.on_verified(done)

    def _reject(self, growth: Growth, error: CorruptError) -> None:
        # Once more, from nothing: a machine that crashed may have lost bytes that were recorded.
        with self._condition:
            again = growth.file.path not in self._restarts
        if again:
            self._start_over(growth, error.message)
            return
        growth.discard()
        raise error

    def _start_over(self, growth: Growth, detail: str) -> None:
        path = growth.file.path
        with self._condition:
            self._restarts[path] = self._restarts.get(path, 0) + 1
            if growth.abandoned:
                return
            growth.abandoned = True
        growth.discard()
        if self._restarts[path] > _RESTARTS:
            raise ChangedError(f"{path} was another at each of {_RESTARTS + 1} tries: {detail}")
        self._observer.on_retry(path, "changed", detail, 0.0)
        self._observer.on_bytes(path, -growth.arrived)
        file = self._origin.refresh(growth.file)
        if file.validator == growth.file.validator and file.size != growth.file.size:
            sizes = f"{growth.file.size} bytes in the listing, {file.size} now"
            raise CorruptError(f"{path}: the source tells two lengths for the same content: {sizes}")
        with self._condition:
            self._waiting.append(file)
            self._condition.notify_all()


def _with_digest(file: RemoteFile, digest: Digest | None) -> RemoteFile:
    return type(file)(file.path, file.size, file.validator, file.origin, digest)

"""One download in the worker, from the request to the published copy.

check the target -> lock -> list -> compare with the target -> check permission -> check space -> fetch -> publish
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from storage.disk.changes import Changes, find_changes
from storage.disk.generations import GenerationsLayout
from storage.disk.journal import Journal
from storage.disk.layout import Layout, Local
from storage.disk.listing import Listing, select
from storage.disk.lock import Lock
from storage.disk.publication import publish
from storage.disk.staging import Staging
from storage.memory import is_exhaustion, release
from storage.request.download import Action
from storage.request.patterns import selected
from storage.request.source import parse_source
from storage.request.target import check_target
from storage.worker.fetcher import open_source
from storage.worker.verification import Verification

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from storage.disk.held import Held
    from storage.disk.listing import RemoteFile
    from storage.disk.manifest import Manifest
    from storage.request.download import DownloadRequest
    from storage.request.source import Source
    from storage.worker.events import Reporter
    from storage.worker.fetcher import Fetcher

__all__ = ["run"]


def run(request: DownloadRequest, reporter: Reporter) -> None:
    """Carry out a request.

    Raises:
        StorageError: The request failed; the error says why.
    """
    source = parse_source(request.source)
    target = check_target(request.output_dir, request.write_roots)
    if request.by_content:
        _ContentDownload(request, source, target, reporter).download()
    else:
        layout = Layout(target, request.write_roots)
        _ACTIONS[request.action](_Download(request, source, target, reporter, layout))


class _Download:
    def __init__(
        self, request: DownloadRequest, source: Source, target: Path, reporter: Reporter, layout: Layout
    ) -> None:
        self._request = request
        self._source = source
        self._target = target
        self._reporter = reporter
        self._layout = layout
        self._locks: list[Lock] = []

    def fetcher(self) -> Fetcher:
        return open_source(self._source, self._request, self._target)

    def download(self) -> None:
        """Bring the copy up to date with the source."""
        fetcher = self.fetcher()
        if self._layout.work == self._layout.inside:
            # This process works inside the target. Another one, with other mounts or write roots, may work beside it.
            self._lock(self._layout.beside).wait_for_others()
        self._layout.prepare()
        with ExitStack() as stack:
            # These run in reverse order: lift the memory limit, close the journal, remove empty work, release the
            # locks, remove empty directories.
            stack.callback(self._layout.leave)
            self._locks.append(stack.enter_context(self._lock(self._layout.work)))
            # Again: while this process waited for the lock, the other download may have removed the directories.
            self._layout.prepare()
            self._lock_target(stack)
            journal = Journal(self._layout.journal)
            stack.callback(self._leave_nothing_empty)
            stack.callback(journal.close)
            stack.push(_make_room)
            self._download(fetcher, journal, stack)

    def _lock(self, directory: Path) -> Lock:
        return Lock(directory, timeout=self._request.lock_timeout, on_wait=self._reporter.waiting)

    def _lock_target(self, stack: ExitStack) -> None:
        """Also lock the target if it holds files: other processes may keep their work elsewhere (docs/adr/0016).

        The work directory's lock always comes first, so that two processes never wait for each other.
        A target without files has no such lock: a new copy must appear by one rename of a directory.
        """
        layout = self._layout
        if not layout.is_in_place:
            layout.is_in_place = layout.is_occupied()
        is_locked = layout.work == layout.inside or len(self._locks) > 1
        if layout.is_in_place and not is_locked and layout.prepare_inside():
            self._locks.append(stack.enter_context(self._lock(layout.inside)))

    def _download(self, fetcher: Fetcher, journal: Journal, stack: ExitStack) -> None:
        listing = self._listing(fetcher)
        held = self._layout.held()
        local = self._layout.compare(listing, held, fetcher.find_digest, self._reporter.on_hashed)
        # Refused after the listing and before the first byte (ADR 16).
        self._check_allowed(self._changes(listing, held, local))
        self._layout.sweep(local.wanted)
        self._plan(listing, local, journal)
        fetched = self._fetch(fetcher, local.wanted, journal)
        self._lock_target(stack)
        # A process that was suspended for longer than the lease may have lost its locks.
        for lock in self._locks:
            lock.check()
        # Checked again: during a long download, others may have put files into the target (ADR 16).
        changes = self._changes(listing, self._layout.held(), local)
        self._check_allowed(changes)
        manifest = self._publish(changes, fetched)
        self._layout.clean()
        path = str(self._layout.target)
        self._reporter.done(files=len(manifest.entries), revision=manifest.revision, path=path)

    def _publish(self, changes: Changes, fetched: Sequence[RemoteFile]) -> Manifest:
        return publish(self._layout, changes, fetched, self._reporter.removed)

    def _fetch(self, fetcher: Fetcher, wanted: Sequence[RemoteFile], journal: Journal) -> list[RemoteFile]:
        """Fetch the files that are not in the tree yet; return all wanted files."""
        ready = [file for file in wanted if self._is_ready(file, journal, fetcher)]
        for file in ready:
            self._reporter.on_bytes(file.path, file.size)
            self._reporter.on_verified(file)
        names = {file.path for file in ready}
        rest = [file for file in wanted if file.path not in names]
        staging = Staging(self._layout.tree, journal, self._reporter)
        return [*ready, *(fetcher.fetch(rest, staging, workers=self._request.max_workers) if rest else [])]

    def _listing(self, fetcher: Fetcher) -> Listing:
        return select(fetcher.listing(), self._request.include, self._request.exclude)

    def _changes(self, listing: Listing, held: Held, local: Local) -> Changes:
        is_chosen = partial(selected, include=self._request.include, exclude=self._request.exclude)
        return find_changes(self._target, held, listing, local, is_chosen)

    def _check_allowed(self, changes: Changes) -> None:
        if not self._request.replace:
            changes.check_allowed()

    def _plan(self, listing: Listing, local: Local, journal: Journal) -> None:
        wanted = sum(file.size for file in local.wanted)
        resumed = sum(end - start for file in local.wanted for start, end in journal.spans(file))
        free = self._layout.check_space(wanted - resumed)
        self._reporter.planned(
            action=self._request.action, source=listing.source, revision=listing.revision, files=len(listing.files), total=listing.size,
            kept_files=len(local.kept), kept=listing.size - wanted, fetch_files=len(local.wanted), fetch_bytes=wanted,
            resumed=resumed, free_bytes=free,
        )  # fmt: skip

    def _is_ready(self, file: RemoteFile, journal: Journal, fetcher: Fetcher) -> bool:
        """Whether an earlier run has fetched and verified a file.

        A file without a digest counts only if its source lists all digests. Otherwise the digest may still be found.
        """
        if not journal.is_verified(file) or not (file.digest or fetcher.lists_digests):
            return False
        try:
            return os.lstat(self._layout.tree / file.path).st_size == file.size
        except OSError:
            return False

    def _leave_nothing_empty(self) -> None:
        """Remove a work directory without bytes, for example of a source that could not be listed."""
        try:
            is_empty = self._layout.journal.stat().st_size == 0
        except FileNotFoundError:
            return
        if is_empty and not self._layout.is_replacing():
            self._layout.discard()

    def look(self) -> None:
        """Report what a download would do, and write nothing."""
        fetcher = self.fetcher()
        listing = self._listing(fetcher)
        held = self._layout.held()
        local = self._layout.compare(listing, held, fetcher.find_digest, self._reporter.on_hashed)
        changes = self._changes(listing, held, local)
        self._plan(listing, local, Journal(self._layout.journal, read_only=True))
        for removal in changes.removals:
            self._reporter.removal(removal)
        # After the removals were reported: the user needs the list to decide about --replace.
        self._check_allowed(changes)
        self._reporter.done(files=len(listing.files), revision=listing.revision)

    def verify(self) -> None:
        """Verify the copy against its manifest and, unless `offline` is set, against the source."""
        fetcher = None if self._request.offline else self.fetcher()
        Verification(self._target, self._source, self._reporter).run(fetcher, self._request)


class _ContentDownload(_Download):
    """A download into a new directory named by its content. It changes no existing file, so it needs no consent."""

    def __init__(self, request: DownloadRequest, source: Source, target: Path, reporter: Reporter) -> None:
        self._generations = GenerationsLayout(target, source.uri, request.write_roots)
        super().__init__(request, source, target, reporter, self._generations)

    def _changes(self, listing: Listing, held: Held, local: Local) -> Changes:
        return Changes(self._target, held, listing, local.kept, (), (), ())

    def _publish(self, changes: Changes, fetched: Sequence[RemoteFile]) -> Manifest:
        return self._generations.publish(changes, fetched)


def _make_room(_kind: object, error: BaseException | None, _trace: object) -> None:
    """Lift the memory limit if it was reached: cleanup needs some memory, too (docs/adr/0017)."""
    if error and is_exhaustion(error):
        release()


_ACTIONS: Final[Mapping[Action, Callable[[_Download], None]]] = {
    Action.DOWNLOAD: _Download.download,
    Action.DRY_RUN: _Download.look,
    Action.VERIFY: _Download.verify,
}

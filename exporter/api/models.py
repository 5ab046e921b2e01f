"""POST /v1/download_model, GET /v1/downloads, GET and DELETE /v1/downloads/{id}.

{"source": "hf://org/model", "output_dir": "/models/m"}   ->  200 {"status": "success", "download": {...}}
the same with "async_download": true                      ->  202 {"status": "accepted", "download": {...}}
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import falcon
import msgspec

from exporter.api.bodies import decode
from exporter.api.places import Lane
from storage.errors import TargetError, UsageError
from storage.request.config import Config
from storage.request.download import DownloadRequest
from storage.request.limits import excess

if TYPE_CHECKING:
    from collections.abc import Callable

    from falcon import Request, Response

    from exporter.api.places import Budget
    from storage.supervisor.supervisor import Supervisor

__all__ = ["DownloadModelResource", "DownloadResource", "DownloadsResource"]


MOST_PATTERNS: Final = 1024
MOST_PATTERN_BYTES: Final = 1024


class DownloadForm(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a download; `replace` overrides DOWNLOAD_REPLACE."""

    source: str
    output_dir: str
    config: dict[str, Any] | str | None = None
    max_workers: int = 8
    async_download: bool = False
    allow_patterns: list[str] | None = None
    ignore_patterns: list[str] | None = None
    replace: bool | None = None


class DownloadModelResource:
    """POST /v1/download_model: downloads a model into a directory."""

    def __init__(
        self,
        supervisor: Supervisor,
        config: Config,
        holds: Callable[[Path], bool],
        budget: Budget,
        *,
        replace: bool = False,
    ) -> None:
        """Prepare the resource.

        Args:
            supervisor: Runs the downloads.
            config: The pod's own credentials and endpoints.
            holds: Tells whether a directory has the files of a loaded adapter. An
                engine crashes when they change.
            budget: The places for callers that wait.
            replace: Whether a download may replace files of another source when its request does not say.
        """
        self._supervisor = supervisor
        self._config = config
        self._holds = holds
        self._budget = budget
        self._replace = replace

    def on_post(self, req: Request, resp: Response) -> None:
        """Answer 200 when the model is downloaded, or 202 immediately with `async_download`, and a Location."""
        form = decode(req, DownloadForm)
        with self._budget[Lane.CALLS if form.async_download else Lane.WAITS].take():
            self._download(form, resp)

    def _download(self, form: DownloadForm, resp: Response) -> None:
        if not Path(form.output_dir).is_absolute():
            raise TargetError(f"the output directory must be absolute, not {form.output_dir!r}")
        if self._holds(Path(form.output_dir)):
            raise TargetError(f"{form.output_dir} has the files of a loaded adapter: choose another directory")
        request = DownloadRequest(
            form.source,
            form.output_dir,
            config=self._config.for_caller(Config.from_mapping(form.config) if form.config else Config()),
            max_workers=form.max_workers,
            include=_patterns("allow_patterns", form.allow_patterns),
            exclude=_patterns("ignore_patterns", form.ignore_patterns),
            replace=self._replace if form.replace is None else form.replace,
        )
        if form.async_download:
            job = self._supervisor.submit(request)
            resp.status = falcon.code_to_http_status(HTTPStatus.ACCEPTED)
            resp.set_header("Location", f"/v1/downloads/{job.id}")
            resp.media = {"status": "accepted", "download": job.to_json()}
            return
        job = self._supervisor.wait(self._supervisor.submit(request).id)
        if job.error:
            raise job.error
        resp.media = {"status": "success", "download": job.to_json()}


def _patterns(field: str, patterns: list[str] | None) -> tuple[str, ...]:
    found = tuple(patterns or ())
    if len(found) > MOST_PATTERNS:
        raise UsageError(f"{field} has {len(found):,} patterns; the limit is {MOST_PATTERNS:,}")
    problem = next(filter(None, (excess(one, MOST_PATTERN_BYTES) for one in found)), None)
    if problem:
        raise UsageError(f"a pattern of {field} {problem}")
    return found


class DownloadsResource:
    """GET /v1/downloads: all downloads that the supervisor remembers, the oldest first."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"downloads": [job.to_json() for job in self._supervisor.list()]}

    on_head = on_get


class DownloadResource:
    """GET and DELETE /v1/downloads/{id}: the status of one download, and its cancellation."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def on_get(self, req: Request, resp: Response, download: str) -> None:
        resp.media = self._supervisor.get(download).to_json()

    on_head = on_get

    def on_delete(self, req: Request, resp: Response, download: str) -> None:
        """Cancel the download, and answer with its status."""
        resp.media = self._supervisor.cancel(download).to_json()

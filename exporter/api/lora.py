"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, GET /v1/lora_adapters and /v1/lora_adapters/{name}.

{"lora_name": "sql", "source": "hf://org/sql-lora"}  ->  200 {"status": "success", "lora_name": "sql", ...}
the same with "async_download": true                 ->  202 {"status": "accepted", "lora_name": "sql"}
"""

from __future__ import annotations

from dataclasses import asdict
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import falcon
import msgspec

from exporter.api.bodies import decode
from exporter.api.places import Lane
from lora import codes
from lora.adapter import Wanted, check_directory, check_name
from lora.engine.prefix_cache import WARNING
from lora.errors import EngineUnavailableError, InvalidAdapterError, LoraError
from lora.files.installation import Extras
from storage.request.config import Config
from storage.request.source import HubSource, parse_source
from storage.request.target import check_target

if TYPE_CHECKING:
    from falcon import Request, Response

    from exporter.api.places import Budget
    from lora.adapter import Status
    from lora.manager import Manager
    from lora.record import Goal

__all__ = ["AdapterResource", "AdaptersResource", "LoadResource", "UnloadResource"]

WAIT_SECONDS: Final = 3600.0
MOST_WORKERS: Final = 64


class LoadForm(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a load: the fields of this runtime, of the reference runtime, and of vLLM's own route.

    `load_inplace` is accepted and never passed on, because it has crashed vLLM.
    """

    lora_name: str
    source: str | None = None
    output_dir: str | None = None
    config: dict[str, Any] | str | None = None
    max_workers: int = 8
    async_download: bool = False
    allow_pickle: bool = False
    lora_path: str | None = None
    load_inplace: bool = False
    refresh: bool = False


class UnloadForm(msgspec.Struct):
    """The body of an unload; vLLM's clients send further fields, which are ignored."""

    lora_name: str


class LoadResource:
    """POST /v1/load_lora_adapter: downloads an adapter and loads it into the engine."""

    def __init__(
        self, manager: Manager, budget: Budget, *, config: Config, lora_dir: Path, write_roots: tuple[str, ...]
    ) -> None:
        """Prepare the resource.

        Args:
            manager: Holds the desired adapters, and reconciles the engine with them.
            budget: The places for callers that wait.
            config: The pod's own credentials and endpoints.
            lora_dir: The directory for adapters whose request names none.
            write_roots: Directories that confine downloads.
        """
        self._manager = manager
        self._config = config
        self._lora_dir = lora_dir
        self._write_roots = write_roots
        self._budget = budget

    def on_post(self, req: Request, resp: Response) -> None:
        """Answer 200 when the engine has loaded the adapter, or 202 immediately with `async_download`."""
        form = decode(req, LoadForm)
        with self._budget[Lane.CALLS if form.async_download else Lane.WAITS].take():
            self._load(form, resp)

    def _load(self, form: LoadForm, resp: Response) -> None:
        caller = Config.from_mapping(form.config) if form.config else Config()
        wanted, extras = self._wanted(form, caller), self._extras(form, caller)
        if form.async_download:
            self._manager.load(wanted, kept=True, extras=extras)
            resp.status = falcon.code_to_http_status(HTTPStatus.ACCEPTED)
            resp.set_header("Location", f"/v1/lora_adapters/{quote(form.lora_name, safe='')}")
            resp.media = {"status": "accepted", "lora_name": form.lora_name}
            return
        goal = self._manager.load(wanted, kept=False, extras=extras)
        if not goal.done.wait(WAIT_SECONDS):
            raise LoraError(codes.TIMEOUT, "the adapter is not loaded yet: ask for it at /v1/lora_adapters")
        if goal.error:
            raise goal.error
        resp.media = self._answer(form.lora_name, goal)

    @staticmethod
    def _answer(name: str, goal: Goal) -> dict[str, Any]:
        answer = {
            "status": "success",
            "message": f"adapter {name} is loaded",
            "lora_name": name,
            "path": str(goal.found.engine_path) if goal.found else "",
            "possibly_stale": goal.possibly_stale,
        }
        return answer | ({"warning": WARNING} if goal.possibly_stale else {})

    def _wanted(self, form: LoadForm, caller: Config) -> Wanted:
        name = check_name(form.lora_name)
        if form.lora_path and (form.source or form.output_dir):
            raise InvalidAdapterError(
                codes.INVALID_PATH, "lora_path is for an adapter that is there: leave source and output_dir out"
            )
        directory = form.lora_path or form.output_dir
        if directory:
            check_directory(directory, "lora_path" if form.lora_path else "output_dir")
        if form.source is None:
            if not directory:
                raise InvalidAdapterError(codes.INVALID_SOURCE, "give a source, or the output_dir where the adapter is")
            return Wanted(name, Path(directory), allow_pickle=form.allow_pickle, refresh=form.refresh)
        # The directory depends on the source without the revision of `config`. All those revisions share it, so equal
        # content is not loaded again.
        derived = self._lora_dir / sha256(parse_source(form.source).uri.encode()).hexdigest()[:32]
        return Wanted(
            name, check_target(directory or str(derived), self._write_roots), _pinned(form.source, caller),
            allow_pickle=form.allow_pickle, refresh=form.refresh,
        )  # fmt: skip

    def _extras(self, form: LoadForm, caller: Config) -> Extras:
        if not 1 <= form.max_workers <= MOST_WORKERS:
            raise falcon.HTTPBadRequest(description=f"max_workers must be from 1 to {MOST_WORKERS}.")
        return Extras(self._config.for_caller(caller), form.max_workers)


def _pinned(text: str, caller: Config) -> str:
    """Return a Hub source with the revision of the caller's `config`, because another revision is another source."""
    source = parse_source(text)
    if isinstance(source, HubSource) and not source.revision and caller.hf_revision:
        return parse_source(f"{source.uri}@{caller.hf_revision}").uri
    return text


class UnloadResource:
    """POST /v1/unload_lora_adapter: removes an adapter from the desired ones and from the engine."""

    def __init__(self, manager: Manager, budget: Budget) -> None:
        """Use `manager` to unload; each request takes a place of `budget`, because every caller waits."""
        self._manager = manager
        self._budget = budget

    def on_post(self, req: Request, resp: Response) -> None:
        """Answer 200 with the state `unloaded`, or `unloading` if the engine is unreachable or takes too long.

        An engine that is back later does not have the adapter, or loses it then.
        """
        name = decode(req, UnloadForm).lora_name
        with self._budget[Lane.WAITS].take():
            goal = self._manager.unload(name)
            is_done = goal.done.wait(WAIT_SECONDS)
        if goal.error and not isinstance(goal.error, EngineUnavailableError):
            raise goal.error
        state = "unloaded" if is_done and not goal.error else "unloading"
        resp.media = {"status": "success", "message": f"adapter {name} is {state}", "lora_name": name, "state": state}


class AdaptersResource:
    """GET /v1/lora_adapters: the status of all adapters, those of the engine that are unmanaged included."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"adapters": [_shown(status) for status in self._manager.statuses()]}

    on_head = on_get


class AdapterResource:
    """GET /v1/lora_adapters/{name}: the status of one adapter, whose name may contain slashes."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def on_get(self, req: Request, resp: Response, name: str) -> None:
        resp.media = _shown(self._manager.status(name))

    on_head = on_get


def _shown(status: Status) -> dict[str, Any]:
    shown = asdict(status)
    facts = shown.pop("facts") or {"rank": None, "base_model": None, "size": None}
    code, message = shown.pop("error_code"), shown.pop("error")
    error = {"code": code, "message": message} if code else None
    return shown | {
        "base_model": facts["base_model"],
        "rank": facts["rank"],
        "bytes": facts["size"],
        "last_error": error,
    }

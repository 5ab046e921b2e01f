"""The Model YAML as a list of desired adapters.

    kind: Model                              kind: ModelBooster
    spec:                                    spec:
      backends:                                backend:
        - name: ...                              name: ...
          cacheURI: hostpath:///cache/           cacheURI: ...
          loraAdapters:                          loraAdapters:
            - name: lora-sql                       - ...
              artifactURL: s3://bucket/path

An adapter's base directory is the one that Kthena's controller computes: the cache path, and the MD5 of the
artifactURL (GetCachePath and GetMountPath in kthena).
"""

from __future__ import annotations

from hashlib import md5
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import yaml

from lora.adapter import Origin, Wanted, check_directory, check_name
from lora.errors import InvalidAdapterError
from lora.model.cost import problem_of
from storage.errors import SourceError, clipped
from storage.request.source import parse_source

__all__ = ["ModelFileError", "adapters_of", "cache_path"]

_YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Characters of a name in an error message: a refused name can have any length.
_SHOWN: Final = 300
_KINDS: Final = ("Model", "ModelBooster")


class ModelFileError(ValueError):
    """The file is not a usable Model; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(clipped(message))


class _Adapter(msgspec.Struct):
    name: str
    artifactURL: str  # noqa: N815 - the name in the YAML


class _Backend(msgspec.Struct):
    name: str = ""
    cacheURI: str = ""  # noqa: N815 - the name in the YAML
    loraAdapters: list[_Adapter] | None = None  # noqa: N815 - the name in the YAML


class _Spec(msgspec.Struct):
    backends: list[_Backend] | None = None
    backend: _Backend | None = None


class _Model(msgspec.Struct):
    kind: str
    spec: _Spec


def adapters_of(text: bytes, *, backend: str | None, lora_dir: Path) -> list[Wanted]:
    """Return the adapters that a Model file asks for.

    Args:
        text: The content of the file. If it has several documents, the first Model is used.
        backend: The backend's name; may be `None` if there is only one.
        lora_dir: The base directory for a backend without a cacheURI.

    Raises:
        ModelFileError: The file is invalid, or it is unclear which backend is meant.
    """
    chosen = _choose(_models(text), backend)
    wanted = [_wanted(chosen, adapter, lora_dir) for adapter in chosen.loraAdapters or ()]
    names = [one.name for one in wanted]
    if twice := next((name for name in names if names.count(name) > 1), None):
        message = f"adapter {twice!r} is there twice"
        raise ModelFileError(message)
    return wanted


def _models(text: bytes) -> _Model:
    try:
        problem = problem_of(text)
        documents = [] if problem else list(yaml.load_all(text, Loader=_YamlLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        message = f"not valid YAML{f', line {mark.line + 1}' if mark else ''}"
        raise ModelFileError(message) from None
    except (ValueError, RecursionError):  # an invalid date or number, such as 2026-13-01; too deeply nested
        message = "not valid YAML: a value is not what it looks like"
        raise ModelFileError(message) from None
    if problem:
        raise ModelFileError(problem)
    found = [one for one in documents if isinstance(one, dict) and one.get("kind") in _KINDS]
    if not found:
        message = f"no document of kind {' or '.join(_KINDS)}"
        raise ModelFileError(message)
    try:
        model: _Model = msgspec.convert(found[0], _Model)
    except msgspec.ValidationError as error:
        raise ModelFileError(str(error)) from None
    return model


def _choose(model: _Model, name: str | None) -> _Backend:
    backends: list[_Backend] = [*(model.spec.backends or ()), *([model.spec.backend] if model.spec.backend else [])]
    if not backends:
        message = "spec has no backend"
        raise ModelFileError(message)
    names = ", ".join(backend.name for backend in backends)
    if name is None:
        if len(backends) > 1:
            message = f"several backends ({names}): say which with --backend"
            raise ModelFileError(message)
        return backends[0]
    found = next((backend for backend in backends if backend.name == name), None)
    if found is None:
        message = f"no backend {name!r}, only {names}"
        raise ModelFileError(message)
    return found


def _wanted(backend: _Backend, adapter: _Adapter, lora_dir: Path) -> Wanted:
    try:
        name = check_name(adapter.name)
        parse_source(adapter.artifactURL)
    except (InvalidAdapterError, SourceError) as error:
        message = f"adapter {adapter.name[:_SHOWN]!r}: {error}"
        raise ModelFileError(message) from None
    base = _cache_of(backend) or lora_dir
    # Kthena's GetMountPath: the MD5 is a name here, not a protection.
    digest = md5(adapter.artifactURL.encode(), usedforsecurity=False).hexdigest()
    return Wanted(name, base / digest, adapter.artifactURL, Origin.MODEL)


def _cache_of(backend: _Backend) -> Path | None:
    try:
        return Path(check_directory(str(cache_path(backend.cacheURI)), "cacheURI")) if backend.cacheURI else None
    except InvalidAdapterError as error:
        raise ModelFileError(error.message) from None
    except ValueError:
        message = f"cacheURI {backend.cacheURI!r} is no URI"
        raise ModelFileError(message) from None


def cache_path(uri: str) -> Path:
    """Return the directory of a cacheURI: its host and path, from the root (kthena's GetCachePath)."""
    parts = urlsplit(uri)
    return Path("/" + f"{parts.netloc}{parts.path}".strip("/"))

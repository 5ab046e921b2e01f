"""The engines' LoRA routes: what to send, and what the answers mean.

    vLLM     POST /v1/load_lora_adapter, /v1/unload_lora_adapter    plain text, or {"error": {"message": ...}}
    SGLang   POST /load_lora_adapter, /unload_lora_adapter          {"success": ..., "error_message": ...}

Both list loaded adapters at GET /v1/models (SGLang from 0.5.6 on). Their error codes do not tell errors apart, so a
table matches the words of their messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from lora import codes
from lora.engine.cache_key import CacheKey, vllm_key
from lora.engine.prefix_cache import Reset
from lora.errors import EngineRefusedError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lora.engine.exchange import Answer, Exchange
    from storage.codes import Code

__all__ = ["APIS", "EngineApi", "EngineClient", "Models"]


@dataclass(frozen=True, slots=True)
class EngineApi:
    """An engine's routes, and the key of its prefix cache.

    Attributes:
        load: The route that loads an adapter.
        unload: The route that unloads an adapter.
        key: Returns the prefix cache's key for an engine version.
    """

    load: str
    unload: str
    key: Callable[[str], CacheKey]


APIS: Final = {
    "vllm": EngineApi("/v1/load_lora_adapter", "/v1/unload_lora_adapter", vllm_key),
    "sglang": EngineApi("/load_lora_adapter", "/unload_lora_adapter", lambda _: CacheKey.LOAD),
}

_LIST_SECONDS: Final = 10.0
# SGLang's unload blocks until the adapter's requests have ended; a load reads files from a volume.
_CHANGE_SECONDS: Final = 600.0
_LONGEST_QUOTE: Final = 300

# Answers of an engine without /reset_prefix_cache: vLLM has that route only in its development mode.
_NO_SUCH_ROUTE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})


@dataclass(frozen=True, slots=True)
class _Meaning:
    """One row of the table of meanings. The first row that fits an answer's status and words counts.

    Words are case-insensitive. `|` separates alternatives; `…` matches any text between two parts. Regular
    expressions are not used: `a.*b` needs quadratic time for a long answer.
    """

    code: Code
    statuses: frozenset[int]
    words: tuple[tuple[str, ...], ...]

    def fits(self, status: int, words: str) -> bool:
        """Tell whether this row fits an answer; `words` must be in lower case."""
        return status in self.statuses and any(_has_in_order(words, parts) for parts in self.words)


def _has_in_order(text: str, parts: tuple[str, ...]) -> bool:
    position = 0
    for part in parts:
        found = text.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return True


def _row(code: Code, statuses: str, words: str) -> _Meaning:
    alternatives = tuple(tuple(each.split("…")) for each in words.split("|"))
    return _Meaning(code, frozenset(map(int, statuses.split())), alternatives)


# These refusals count as success for a load or an unload: the engine is already in the requested state. In any other
# context they are a plain ENGINE_REFUSED. "beenloaded" is a typo of older vLLM versions.
_ALREADY: Final = _row(codes.ENGINE_REFUSED, "400 500", "already been loaded|already beenloaded|already loaded")
_ABSENT: Final = _row(codes.ENGINE_REFUSED, "400 404", "adapter … cannot be found|with name … does not exist")
_ANYTHING: Final = _row(codes.ENGINE_REFUSED, "", "")

_MEANINGS: Final = (
    _ALREADY,
    _ABSENT,
    _row(codes.ENGINE_UNAUTHORIZED, "401 403", ""),
    # vLLM without VLLM_ALLOW_RUNTIME_LORA_UPDATING has no LoRA routes and answers 404 {"detail":"Not Found"}.
    _row(codes.LORA_UPDATING_DISABLED, "404 405", "not found|not allowed"),
    _row(codes.LORA_DISABLED, "400 500", "lora is not enabled|--enable-lora"),
    _row(
        codes.RANK_TOO_LARGE, "400 500",
        "rank …greater than|rank …exceeds|rank …larger|rank …incompatible|max_lora_rank",
    ),
    _row(codes.NAME_TAKEN, "400", "conflicts with a served base model"),
    _row(codes.ADAPTER_NOT_FOUND, "400 404 500", "no adapter found|no such file|does not exist|cannot find"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Models:
    """The models that the engine serves.

    Attributes:
        bases: Names of its base models.
        adapters: Directory of each adapter, by name.
    """

    bases: frozenset[str]
    adapters: dict[str, str]


class EngineClient:
    """Sends LoRA requests to one engine; safe for threads."""

    def __init__(self, base_url: str, api: EngineApi, *, api_key: Callable[[], str | None] = lambda: None) -> None:
        """Prepare; nothing is sent. `api_key` is called for each request, so a rotated key takes effect."""
        self._base_url = base_url
        self._api = api
        self._api_key = api_key
        self._exchange: Exchange | None = None

    def models(self) -> Models:
        """Return the models that the engine serves now.

        Raises:
            EngineUnavailableError: The engine does not answer, or its answer makes no sense.
            EngineRefusedError: The engine refuses, for example because of a missing API key.
        """
        response = self._send("GET", "/v1/models", timeout=_LIST_SECONDS)
        if response.status_code != HTTPStatus.OK:
            raise _refusal(response)
        try:
            cards = response.json()["data"]
            # Only id, root and parent are stable: `created` and `permission` change with each request.
            bases = frozenset(card["id"] for card in cards if not card.get("parent"))
            adapters = {card["id"]: card.get("root") or "" for card in cards if card.get("parent")}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise EngineUnavailableError("the engine's /v1/models is not what it should be") from None
        if not all(isinstance(each, str) for each in (*bases, *adapters, *adapters.values())):
            raise EngineUnavailableError("the engine's /v1/models is not what it should be")
        return Models(bases, adapters)

    def load(self, name: str, path: Path) -> bool:
        """Load an adapter; return whether the engine had one of this name already, from whatever directory.

        Raises:
            EngineUnavailableError: The engine does not answer.
            EngineRefusedError: The engine does not load it; the code says why.
        """
        return self._change(self._api.load, {"lora_name": name, "lora_path": str(path)}, fine=_ALREADY)

    def unload(self, name: str) -> bool:
        """Unload an adapter; return whether the engine did not have it.

        SGLang answers once the adapter's running requests have ended.

        Raises:
            EngineUnavailableError: The engine does not answer.
            EngineRefusedError: The engine does not unload it.
        """
        return self._change(self._api.unload, {"lora_name": name}, fine=_ABSENT)

    def cache_key(self) -> CacheKey:
        """Return the key of the prefix cache in the engine's current version.

        Raises:
            EngineUnavailableError: The engine does not answer.
        """
        if self._api.key("") is CacheKey.LOAD:
            return CacheKey.LOAD
        response = self._send("GET", "/version", timeout=_LIST_SECONDS)
        try:
            version = str(response.json()["version"]) if response.status_code == HTTPStatus.OK else ""
        except (ValueError, TypeError, KeyError):
            version = ""
        return self._api.key(version)

    def reset_prefix_cache(self) -> Reset:
        """Ask vLLM to empty its prefix cache. Only `"success": true` counts as done.

        vLLM refuses while requests run, but still answers 200: with `{"success": false}` since 0.26, with an empty body
        in earlier versions.

        Raises:
            EngineUnavailableError: The engine does not answer.
        """
        response = self._send("POST", "/reset_prefix_cache?reset_external=true", timeout=_LIST_SECONDS)
        if response.status_code in _NO_SUCH_ROUTE:
            return Reset.UNSUPPORTED
        try:
            is_done = response.status_code == HTTPStatus.OK and response.json()["success"] is True
        except (ValueError, TypeError, KeyError):
            is_done = False
        return Reset.DONE if is_done else Reset.REFUSED

    def _change(self, route: str, body: dict[str, str], *, fine: _Meaning) -> bool:
        answer = self._send("POST", route, body, timeout=_CHANGE_SECONDS)
        if answer.status_code == HTTPStatus.OK and not _says_failure(answer):
            return False
        if _meaning(answer) is fine:
            return True
        raise _refusal(answer)

    def _send(self, method: str, route: str, body: dict[str, str] | None = None, *, timeout: float) -> Answer:
        # Imported at the first call: requests takes 8 MB, which pods without adapters do not need.
        from requests import RequestException

        from lora.engine.exchange import Exchange, LargeAnswerError

        self._exchange = self._exchange or Exchange()
        key = self._api_key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            answer = self._exchange.send(method, self._base_url + route, body=body, headers=headers, timeout=timeout)
        except RequestException as error:
            cause = _cause(error)
            is_down = isinstance(cause, ConnectionRefusedError)
            reason = getattr(cause, "strerror", None) or type(cause).__name__
            raise EngineUnavailableError(f"the engine does not answer: {reason}", is_down=is_down) from None
        except LargeAnswerError as error:
            raise EngineUnavailableError(f"the engine's answer to {route} cannot be used: {error}") from None
        # The engine, or a proxy in front of it, is not available: the same as no answer.
        if answer.status_code in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT):
            raise EngineUnavailableError(f"the engine answers {answer.status_code}")
        return answer


def _meaning(answer: Answer) -> _Meaning:
    words = " ".join(_words(answer).lower().split())
    return next((row for row in _MEANINGS if row.fits(answer.status_code, words)), _ANYTHING)


def _refusal(answer: Answer) -> EngineRefusedError:
    meaning = _meaning(answer)
    quote = " ".join(_words(answer).split())[:_LONGEST_QUOTE] or f"status {answer.status_code}"
    if meaning.code is codes.ENGINE_REFUSED:
        return EngineRefusedError(meaning.code, f"the engine refuses: {quote}")
    return EngineRefusedError(meaning.code, f"{meaning.code.advice} (it says: {quote})")


def _says_failure(answer: Answer) -> bool:
    try:
        return answer.json().get("success") is False
    except (ValueError, AttributeError):
        return False  # vLLM answers in plain text


def _words(answer: Answer) -> str:
    """Return the engine's message; the field that holds it differs between engines and versions."""
    try:
        body: Any = answer.json()
    except ValueError:
        return answer.text
    if not isinstance(body, dict):
        return answer.text
    error = body.get("error")
    found = error.get("message") if isinstance(error, dict) else error
    found = found or body.get("error_message") or body.get("message") or body.get("detail") or ""
    return found if isinstance(found, str) else answer.text


def _cause(error: BaseException) -> BaseException:
    """Return the innermost exception: requests wraps the socket's error several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error

"""The engines' LoRA routes: what to send, and what their answers mean.

    vLLM     POST /v1/load_lora_adapter, /v1/unload_lora_adapter    plain text, or {"error": {"message": ...}}
    SGLang   POST /load_lora_adapter, /unload_lora_adapter          {"success": ..., "error_message": ...}

Both list what is loaded at GET /v1/models (SGLang from 0.5.6 on). Engines have
no error codes of use, so their words are matched, in a table.
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
    """An engine's routes, and what its prefix cache knows adapters by.

    Attributes:
        load: Loads an adapter.
        unload: Unloads one.
        key: Returns the cache's key, given the engine's version.
    """

    load: str
    unload: str
    key: Callable[[str], CacheKey]


APIS: Final = {
    "vllm": EngineApi("/v1/load_lora_adapter", "/v1/unload_lora_adapter", vllm_key),
    "sglang": EngineApi("/load_lora_adapter", "/unload_lora_adapter", lambda _: CacheKey.LOAD),
}

_LIST_SECONDS: Final = 10.0
# SGLang's unload waits for the adapter's requests; a load reads files.
_CHANGE_SECONDS: Final = 600.0
_LONGEST_QUOTE: Final = 300

_NO_SUCH_ROUTE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What an answer means: the first row that fits its status and words.

    Words fit in any case, and any of several; `…` stands for whatever is between
    two parts. No regular expression, as `a.*b` takes the square of a text's length.
    """

    code: Code
    statuses: frozenset[int]
    words: tuple[tuple[str, ...], ...]

    def fits(self, status: int, words: str) -> bool:
        """Tell whether this row is about an answer of this status and these words, in lower case."""
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


# Refusals that are fine, as the engine is in the state that was asked for; otherwise there is no word for them.
_ALREADY: Final = _row(codes.ENGINE_REFUSED, "400 500", "already been loaded|already beenloaded|already loaded")
_ABSENT: Final = _row(codes.ENGINE_REFUSED, "400 404", "adapter … cannot be found|with name … does not exist")
_ANYTHING: Final = _row(codes.ENGINE_REFUSED, "", "")

_MEANINGS: Final = (
    _ALREADY,
    _ABSENT,
    _row(codes.ENGINE_UNAUTHORIZED, "401 403", ""),
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
    """What the engine serves.

    Attributes:
        bases: Names of its base models.
        adapters: Directory of each adapter, by name.
    """

    bases: frozenset[str]
    adapters: dict[str, str]


class EngineClient:
    """Talks to one engine; safe for threads."""

    def __init__(self, base_url: str, api: EngineApi, *, api_key: Callable[[], str | None] = lambda: None) -> None:
        """Prepare; `api_key` is asked for at each call."""
        self._base_url = base_url
        self._api = api
        self._api_key = api_key
        self._exchange: Exchange | None = None

    def models(self) -> Models:
        """Return what is served now.

        Raises:
            EngineUnavailableError: The engine does not answer.
            EngineRefusedError: It does not tell.
        """
        response = self._send("GET", "/v1/models", timeout=_LIST_SECONDS)
        if response.status_code != HTTPStatus.OK:
            raise _refusal(response)
        try:
            cards = response.json()["data"]
            bases = frozenset(card["id"] for card in cards if not card.get("parent"))
            adapters = {card["id"]: card.get("root") or "" for card in cards if card.get("parent")}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise EngineUnavailableError("the engine's /v1/models is not what it should be") from None
        if not all(isinstance(each, str) for each in (*bases, *adapters, *adapters.values())):
            raise EngineUnavailableError("the engine's /v1/models is not what it should be")
        return Models(bases, adapters)

    def load(self, name: str, path: Path) -> bool:
        """Load an adapter; return whether it was the engine that had it already.

        Raises:
            EngineUnavailableError: The engine does not answer.
            EngineRefusedError: It does not load it.
        """
        return self._change(self._api.load, {"lora_name": name, "lora_path": str(path)}, fine=_ALREADY)

    def unload(self, name: str) -> bool:
        """Unload an adapter; return whether it was not there in the first place.

        Raises:
            EngineUnavailableError: The engine does not answer.
            EngineRefusedError: It does not unload it.
        """
        return self._change(self._api.unload, {"lora_name": name}, fine=_ABSENT)

    def cache_key(self) -> CacheKey:
        """Return what the prefix cache of the engine as it runs now knows an adapter's blocks by.

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
        """Ask a vLLM to empty its prefix cache; only an answer that says so counts as done.

        vLLM refuses while requests run. It answers 200 all the same, since 0.26
        with `{"success": false}`, earlier with an empty body.

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
        # Imported at the first call: requests costs 8 MB that most pods do not need.
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
    """Return the engine's own words, wherever it put them."""
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
    """Return the innermost reason."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error

"""The engines' HTTP routes: which there are, and who answers them."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from simulators.engine.http import Answer, Call
from simulators.engine.scheduler import Observer
from simulators.engine.sglang.lora import SglangLora
from simulators.engine.sglang.metrics import SglangMetrics
from simulators.engine.traffic import MAX_MODEL_LEN
from simulators.engine.vllm.lora import VllmLora
from simulators.engine.vllm.metrics import VllmMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from simulators.engine.http import Exchange
    from simulators.engine.lora import Adapters, LoraApi
    from simulators.engine.scheduler import Scheduler

FlavourName: TypeAlias = Literal["vllm", "sglang"]

OPEN_PATHS = frozenset({"/metrics", "/health"})

Routes: TypeAlias = "Mapping[str, Mapping[str, Callable[[Call], Answer]]]"


class EngineMetrics(Observer, Protocol):
    """An observer that has a metrics page."""

    content_type: str

    def page(self) -> bytes:
        """Return the exposition."""

    def on_start(self, scheduler: Scheduler) -> None:
        """Publish what is known before the first request."""

    def on_http(self, exchange: Exchange) -> None:
        """Note an answered HTTP request."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """What sets one engine apart from another.

    Attributes:
        metrics: Makes the observer and its page, for a model's name.
        lora: Makes the LoRA routes' answers.
        lora_prefix: Where the LoRA routes are.
        version: Route and answer that tell the engine's version.
        guarded: Start of the paths that need the API key, if the engine has one.
        card: Makes an entry of ``/v1/models`` from name, root and parent.
    """

    metrics: Callable[[str], EngineMetrics]
    lora: Callable[[Adapters], LoraApi]
    lora_prefix: str
    version: tuple[str, str]
    guarded: str
    card: Callable[[str, str, str | None], dict[str, Any]]


def _vllm_card(name: str, root: str, parent: str | None) -> dict[str, Any]:
    permission = {
        "id": f"modelperm-{uuid.uuid4().hex[:16]}",
        "object": "model_permission",
        "created": int(time.time()),
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {**_card("vllm", name, root, parent), "permission": [permission]}


def _sglang_card(name: str, root: str, parent: str | None) -> dict[str, Any]:
    return _card("sglang", name, root if parent else name, parent)


def _card(owner: str, name: str, root: str, parent: str | None) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": owner,
        "root": root,
        "parent": parent,
        "max_model_len": None if parent else MAX_MODEL_LEN,
    }


FLAVOURS: Final[Mapping[FlavourName, Flavour]] = {
    "vllm": Flavour(VllmMetrics, VllmLora, "/v1", ("/version", "0.32.0"), "/v1", _vllm_card),
    "sglang": Flavour(SglangMetrics, SglangLora, "", ("/server_info", "0.5.23"), "/", _sglang_card),
}


def model_list(flavour: Flavour, adapters: Adapters) -> Answer:
    """Return the base model and its adapters, in the order they were loaded."""
    base = flavour.card(adapters.base, f"/models/{adapters.base}", None)
    loaded = [flavour.card(name, root, adapters.base) for name, root in adapters.loaded.items()]
    return Answer.json(200, {"object": "list", "data": [base, *loaded]})


def guard(flavour: Flavour, api_key: str | None, call: Call) -> Answer | None:
    """Return the refusal of a call without the key, where one is needed."""
    if not api_key or call.path in OPEN_PATHS or not call.path.startswith(flavour.guarded):
        return None
    if call.headers.get("authorization") == f"Bearer {api_key}":
        return None
    return Answer.json(401, {"error": "Unauthorized"})


def dispatch(routes: Routes, call: Call) -> Answer:
    """Answer `call` from `routes`, or say as FastAPI does that there is no such thing."""
    methods = routes.get(call.path)
    if methods is None:
        return Answer.json(404, {"detail": "Not Found"})
    if call.method not in methods:
        return Answer.json(405, {"detail": "Method Not Allowed"}, Allow=", ".join(methods))
    return methods[call.method](call)

"""An engine without a model: the HTTP surface of vLLM or SGLang over a synthetic load.

In tests it runs in the process and moves only when told to::

    with Engine(flavour="vllm", model="demo") as engine:
        engine.run_requests(20)
        requests.get(f"{engine.url}/metrics")

On its own it lives by the clock::

    python -m simulators.engine --engine sglang --port 8000 --load 8
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from simulators.engine.api import FLAVOURS, OPEN_PATHS, dispatch, guard, model_list
from simulators.engine.http import Answer, Call, HttpServer
from simulators.engine.lora import Adapters
from simulators.engine.prefix_cache import PrefixCache
from simulators.engine.scheduler import Scheduler
from simulators.engine.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulators.engine.api import FlavourName, Routes
    from simulators.engine.http import Exchange
    from simulators.engine.traffic import Request

_TICK_SECONDS = 0.2
_LONGEST_LEAP_SECONDS = 2.0
_ARRIVAL_SECONDS = 0.1
_ONE_STEP_SECONDS = 0.001
_UNCOUNTED_PATHS = OPEN_PATHS | {"/version", "/server_info"}


class Engine:
    """An engine that listens while its ``with`` block runs.

    Attributes:
        calls: The last requests that came, oldest first.
        health_status: What ``/health`` answers.
        adapters: The adapters it serves.
        lora_gate: While cleared, loading and unloading adapters waits for it.
        prefix_cache: What it computed for adapters, and serves again.
        flaw: Lines at the end of the metrics page that do not belong there.
    """

    def __init__(
        self,
        *,
        flavour: FlavourName = "vllm",
        model: str = "demo",
        load: float = 0.0,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        lora_enabled: bool = True,
        lora_updating: bool = True,
        version: str | None = None,
        dev_mode: bool = True,
    ) -> None:
        """Prepare an engine.

        Args:
            flavour: Which engine to be.
            model: Name of the base model.
            load: Requests per second that arrive by themselves; 0 leaves it idle.
            seed: Fixes the load.
            host: Where to listen.
            port: Where to listen; 0 takes a free port.
            api_key: Bearer token for everything but health and metrics.
            lora_enabled: Whether adapters can be loaded at all.
            lora_updating: Whether the routes that load them are there.
            version: What it says of its version; the flavour's own by default, none when empty.
            dev_mode: Whether its prefix cache can be reset.
        """
        self._flavour = FLAVOURS[flavour]
        self._model, self._load, self._seed = model, load, seed
        self._address = (host, port)
        self._api_key = api_key
        self._lora_enabled, self._lora_updating = lora_enabled, lora_updating
        self._version = self._flavour.version[1] if version is None else version
        self._dev_mode = dev_mode
        self.calls: deque[Call] = deque(maxlen=1000)
        self.health_status = 200
        self.lora_gate = threading.Event()
        self.lora_gate.set()
        self.flaw = b""
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._server: HttpServer | None = None
        self._pacer = threading.Thread(target=self._pace, name="engine-load")
        self.restart()

    def __enter__(self) -> Self:
        """Listen, and let the load begin."""
        self._server = HttpServer(self, *self._address)
        if self._load > 0:
            self._pacer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, leaving no thread and no socket."""
        self._stopping.set()
        self.lora_gate.set()
        if self._server:
            self._server.close()
        if self._pacer.ident:
            self._pacer.join()

    @property
    def url(self) -> str:
        """The base URL."""
        assert self._server, "the engine is not running"
        return self._server.url

    def restart(self) -> None:
        """Be as after a restart of the process: no adapters, no requests, counters at zero."""
        with self._lock:
            self.adapters = Adapters(self._model, enabled=self._lora_enabled)
            self.prefix_cache = PrefixCache(self.adapters, by_path=self._version >= "0.31")
            self._lora = self._flavour.lora(self.adapters)
            self._metrics = self._flavour.metrics(self._model)
            self._traffic = Traffic(self._load, seed=self._seed, adapters=lambda: tuple(self.adapters.loaded))
            self._scheduler = Scheduler(self._traffic, self._metrics, load=self._load, seed=self._seed)
            self._metrics.on_start(self._scheduler)
            self._due = 0.0
            self._routes = self._make_routes()

    def run_requests(self, count: int) -> None:
        """Take `count` requests, ten a second, and let time pass until all are finished."""
        with self._lock:
            requests = [self._submit_after(_ARRIVAL_SECONDS) for _ in range(count)]
            while any(request.generated < request.output for request in requests):
                self.advance(_ARRIVAL_SECONDS)

    def submit_requests(self, count: int) -> None:
        """Take `count` requests at once and do one step, so that the gauges show them."""
        with self._lock:
            for _ in range(count):
                self._submit_after(0.0)
            self.advance(_ONE_STEP_SECONDS)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        with self._lock:
            began = self._scheduler.now
            self._scheduler.advance(began + seconds)
            self._due += self._scheduler.now - began

    def page(self) -> bytes:
        """Return what ``/metrics`` answers."""
        with self._lock:
            return self._metrics.page() + self.flaw

    def answer(self, call: Call) -> Answer:
        """Answer one HTTP request."""
        self.calls.append(call)
        refusal = guard(self._flavour, self._api_key, call)
        if refusal:
            return refusal
        if call.path.endswith("_lora_adapter"):
            self.lora_gate.wait()
        with self._lock:
            return dispatch(self._routes, call)

    def on_answered(self, exchange: Exchange) -> None:
        """Count an HTTP request as the engine counts it."""
        if exchange.handler in self._routes and exchange.handler not in _UNCOUNTED_PATHS:
            with self._lock:
                self._metrics.on_http(exchange)

    def _submit_after(self, seconds: float) -> Request:
        self.advance(seconds)
        request = self._traffic.request(self._scheduler.now)
        self._scheduler.submit(request)
        return request

    def _make_routes(self) -> Routes:
        prefix = self._flavour.lora_prefix
        version_path = self._flavour.version[0]
        routes: dict[str, dict[str, Callable[[Call], Answer]]] = {
            "/metrics": {"GET": lambda _: Answer(200, self.page(), self._metrics.content_type)},
            "/health": {"GET": lambda _: Answer(self.health_status)},
            "/v1/models": {"GET": lambda _: model_list(self._flavour, self.adapters)},
            "/v1/completions": {"POST": self.prefix_cache.complete},
        }
        if self._version:
            routes[version_path] = {"GET": lambda _: Answer.json(200, {"version": self._version})}
        if self._dev_mode:
            routes["/reset_prefix_cache"] = {"POST": self.prefix_cache.reset}
        if self._lora_updating:
            routes[f"{prefix}/load_lora_adapter"] = {"POST": self._lora.load}
            routes[f"{prefix}/unload_lora_adapter"] = {"POST": self._lora.unload}
        return routes

    def _pace(self) -> None:
        last = time.monotonic()
        while not self._stopping.wait(_TICK_SECONDS):
            now = time.monotonic()
            with self._lock:
                self._due += min(now - last, _LONGEST_LEAP_SECONDS)
                self._scheduler.advance(self._due)
            last = now


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an engine until SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    ends = (signal.SIGTERM, signal.SIGINT)
    # Blocked before there are threads, which inherit it: the signal waits for sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with Engine(
        flavour=options.engine,
        model=options.model,
        load=options.load,
        seed=options.seed,
        host=options.host,
        port=options.port,
    ) as engine:
        print(f"engine {options.engine} listening on {engine.url}", flush=True)
        signal.sigwait(ends)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulators.engine",
        description="The HTTP surface of vLLM or SGLang over a synthetic load.",
    )
    parser.add_argument("--engine", choices=sorted(FLAVOURS), default="vllm")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free port")
    parser.add_argument("--model", default="demo-model", help="name of the base model")
    parser.add_argument("--load", type=float, default=8.0, help="requests per second on average; 0 is idle")
    parser.add_argument("--seed", type=int, default=0, help="fixes the load")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())

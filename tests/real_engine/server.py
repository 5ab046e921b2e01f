"""A real vLLM 0.32 on the CPU, with a tiny model: installed at its first use, started as a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import requests

from simulators.ports import free_port
from simulators.waiting import wait_until

if TYPE_CHECKING:
    from typing import Self

__all__ = ["HOME", "MODEL", "RealEngine", "install"]

ROOT: Final = Path(__file__).parents[2]
HOME: Final = Path(os.environ.get("REALENGINE_HOME", ROOT / ".realengine"))
MODEL: Final = "tiny-llama"

_START_SECONDS: Final = 300
_QUIET: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_SERVER_DEV_MODE": "1",  # /reset_prefix_cache
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "2",
}


def install() -> None:
    """Install the engine unless it is there."""
    subprocess.run([ROOT / "tests" / "real_engine" / "install.sh", HOME], check=True)


class RealEngine:
    """A vLLM server; a context manager. It can be stopped and started again in between."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None) -> None:
        """Prepare a server whose log goes to `folder`; `arguments` are added to vLLM's."""
        self._log = folder / "vllm.log"
        self._port = port or free_port()
        self._arguments = arguments
        self.url = f"http://127.0.0.1:{self._port}"
        self.session = requests.Session()
        self.session.trust_env = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.stop()
        self.session.close()

    def start(self) -> None:
        command: list[str | Path] = [
            HOME / "venv" / "bin" / "vllm", "serve", HOME / "model", "--served-model-name", MODEL,
            "--host", "127.0.0.1", "--port", str(self._port), "--enforce-eager", "--dtype", "bfloat16",
            "--max-model-len", "512", "--max-num-seqs", "8", "--enable-prefix-caching",
            "--enable-lora", "--max-loras", "2", "--max-cpu-loras", "4", "--max-lora-rank", "16",
            *self._arguments,
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | _QUIET, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(self._is_healthy, "vLLM is healthy", seconds=_START_SECONDS, every=0.25)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server and all its processes."""
        os.kill(self.process.pid, number)
        try:
            self.process.wait(timeout=60)
        finally:
            wait_until(self._is_gone, "all processes of vLLM are gone", seconds=60, every=0.1)

    def get(self, path: str) -> requests.Response:
        return self.session.get(self.url + path, timeout=60)

    def post(self, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        return self.session.post(
            self.url + path, data=json.dumps(body or {}), timeout=120, headers={"Content-Type": "application/json"}
        )

    def complete(self, prompt: str, *, model: str = MODEL, max_tokens: int = 8, **more: object) -> requests.Response:
        """Send one completion request that must succeed."""
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, **more}
        response = self.post("/v1/completions", body)
        assert response.status_code == 200, response.text
        return response

    def _is_healthy(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()[-4000:]
        try:
            return self.get("/health").status_code == 200
        except requests.ConnectionError:
            return False

    def _is_gone(self) -> bool:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return True
        return False

"""A real redis-server of one's own, which can be killed, stopped, emptied, filled up and demoted."""

from __future__ import annotations

import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

import pytest
import redis

from simulators.files import CERTIFICATE
from simulators.ports import free_port
from simulators.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

__all__ = ["RedisServer"]

ADMIN: Final = ("admin", "admin-secret")


class RedisServer:
    """A server while its ``with`` block runs; nothing is saved unless a restart keeps the data.

    Attributes:
        url: How the runtime reaches it, credentials included.
        client: A client with all rights.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        user: tuple[str, str, str] | None = None,
        tls: bool = False,
        rename: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a server.

        Args:
            password: What the default user needs.
            user: Name, password and rules of a further user, who is in the URL; the default user is off.
            tls: Whether there is CERTIFICATE, and no plain port.
            rename: Commands that have another name, or none.
            options: Further lines of redis.conf.
        """
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("redis-server is missing: apt-get install redis-server")
        self._program = program
        self._tls = tls
        self._password = password
        self._user = user
        self._rename = rename or {}
        self._options = options or {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory(prefix="redis-")
        self.port = free_port()
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self.client.close()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        name, secret = self._user[:2] if self._user else ("", self._password)
        login = f"{quote(name)}:{quote(secret)}@" if secret else ""
        return f"{self._scheme}://{login}127.0.0.1:{self.port}/0{self._verify}"

    @property
    def _scheme(self) -> str:
        return "rediss" if self._tls else "redis"

    @property
    def _verify(self) -> str:
        return f"?ssl_ca_certs={CERTIFICATE}" if self._tls else ""

    def start(self) -> None:
        """Start, on the same port as before."""
        self._launch()
        wait_until(self._answers, "redis-server answers")

    def kill(self) -> None:
        """End it at once, as kill -9 does; what it held is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self, *, keep: bool) -> None:
        """Kill it and start it again, with its data or empty."""
        if keep:
            self.client.save()
        elif (dump := Path(self._folder.name, "dump.rdb")).exists():
            dump.unlink()
        self.kill()
        self.start()

    def pause(self) -> None:
        """Let it be silent: connections stay, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def index(self) -> dict[str, dict[str, int]]:
        """Return the whole index: key -> field -> unix seconds."""
        keys = sorted(self.client.scan_iter("matrix:kv:block:*", count=1000))
        with self.client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hgetall(key)
            answers = pipeline.execute()
        found = zip(keys, answers, strict=True)
        return {key.decode(): {pod.decode(): int(at) for pod, at in fields.items()} for key, fields in found if fields}

    def keys_of(self, pod: str) -> set[str]:
        """Return the keys that have a pod's field."""
        return {key for key, fields in self.index().items() if pod in fields}

    def members(self, name: str) -> set[bytes]:
        """Return what a set has."""
        # Its types cannot know that this client decodes nothing.
        return cast("set[bytes]", self.client.smembers(name))

    def calls(self) -> dict[str, int]:
        """Return how often each command was run."""
        stats = self.client.info("commandstats")
        return {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}

    def _launch(self) -> None:
        lines = {"save": '""', "dir": self._folder.name, "logfile": "redis.log", "bind": "127.0.0.1"} | dict(
            self._options
        )
        lines |= {"port": "0", "tls-port": str(self.port)} if self._tls else {"port": str(self.port)}
        if self._tls:
            lines |= {"tls-cert-file": str(CERTIFICATE), "tls-key-file": str(CERTIFICATE), "tls-auth-clients": "no"}
        if self._password:
            lines["requirepass"] = self._password
        text = "".join(f"{name} {value}\n" for name, value in lines.items())
        text += "".join(f'rename-command {name} "{other}"\n' for name, other in self._rename.items())
        login: dict[str, str | None] = {"password": self._password}
        if self._user:
            name, secret, rules = self._user
            text += f"user default off\nuser {ADMIN[0]} on >{ADMIN[1]} ~* &* +@all\nuser {name} on >{secret} {rules}\n"
            login = {"username": ADMIN[0], "password": ADMIN[1]}
        conf = Path(self._folder.name, "redis.conf")
        conf.write_text(text)
        if not hasattr(self, "client"):
            url = f"{self._scheme}://127.0.0.1:{self.port}/0{self._verify}"
            self.client = redis.Redis.from_url(url, protocol=2, socket_timeout=10, **login)
        self._process = subprocess.Popen([self._program, conf], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            log = Path(self._folder.name, "redis.log")
            raise ChildProcessError(log.read_text()[-2000:] if log.exists() else "redis-server does not start")
        with suppress(redis.ConnectionError):
            return bool(self.client.ping())
        return False

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

"""Blocks as an engine has them: their events on the wire, and what the router looks for in Redis.

Made of a seed: the publisher makes the events, the benchmark the keys, and
neither sends them to the other. Keys come from the router's contract and from
no code of the runtime.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from simulators.kv.frames import Remove, Store, form
from simulators.kv.router import block_key, std_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["CLEAR", "MODEL", "POD", "Load", "at"]

MODEL: Final = "bench"
POD: Final = "pod-0.default"

_SIZE: Final = 16
_VOCABULARY: Final = range(151_000)
_FORM: Final = form("vllm-0.33")
_HEAD: Final = b"\x93\xcb"  # an array of three that begins with a float64
_TIME: Final = struct.Struct(">d")

CLEAR: Final = b"\x91\x81\xa4type\xb0AllBlocksCleared\x00"


def at(seconds: float, tail: bytes) -> bytes:
    """Return the payload of a batch that the engine made at these unix seconds."""
    return _HEAD + _TIME.pack(seconds) + tail


@dataclass(frozen=True, slots=True)
class Load:
    """Blocks in the order in which an engine stores them, one event a message.

    Attributes:
        blocks: Their number.
        per_event: How many one event has.
        keep: How many the engine has room for: each message removes what was
            stored so long ago. 0 is room for all.
    """

    blocks: int
    per_event: int
    keep: int = 0

    def payloads(self) -> list[bytes]:
        """Return the payload of each message, without its head and time."""
        stored = list(self._events())
        if not self.keep:
            return [_tail(store) for store in stored]
        behind = self.keep // self.per_event
        return [_tail(store, Remove(stored[place - behind].hashes)) for place, store in enumerate(stored)]

    def hashes(self) -> list[int]:
        """Return the router's hash of each block."""
        return [std_hash(tokens) for tokens in self._tokens()]

    def keys(self) -> list[str]:
        """Return the key of each block, in Redis."""
        return [block_key(MODEL, tokens) for tokens in self._tokens()]

    def _events(self) -> Iterator[Store]:
        names = Random(f"names {self.blocks}")
        tokens = self._tokens()
        for start in range(0, self.blocks, self.per_event):
            run = tokens[start : start + self.per_event]
            yield Store([names.getrandbits(64) for _ in run], [token for block in run for token in block], _SIZE)

    def _tokens(self) -> list[Sequence[int]]:
        random = Random(f"tokens {self.blocks}")
        return [random.choices(_VOCABULARY, k=_SIZE) for _ in range(self.blocks)]


def _tail(*happenings: Store | Remove) -> bytes:
    return _FORM.batch(*happenings)[len(_HEAD) + _TIME.size :]

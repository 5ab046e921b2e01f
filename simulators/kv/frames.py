"""Event batches as the engines put them on the wire, in every form there has been.

form                          events   added to BlockStored
vllm-0.9                      arrays   hashes, parent, tokens, block size, lora_id
vllm-0.10.2 ... vllm-0.22     arrays   medium, lora_name, extra_keys, group_idx, kind and window
vllm-0.24 ... vllm-0.33       maps     locality, ownership and session, lookahead tokens
sglang-0.4.9 ... 0.5.18       arrays   one event a page; medium, then a map
sglang-0.5.20, sglang-0.5.22  maps     cache_salt and session, then lora_name
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from simulators.files import CAPTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["FORMS", "Clear", "Form", "Remove", "Store", "captured", "form", "pack"]


_VLLM_STORED: Final = (
    "block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name", "extra_keys",
    "group_idx", "kv_cache_spec_kind", "kv_cache_spec_sliding_window", "locality", "ownership", "session_id",
    "lookahead_token_ids",
)  # fmt: skip
_VLLM_REMOVED: Final = ("block_hashes", "medium", "group_idx", "locality", "ownership")
_SGLANG_ARRAY: Final = (*_VLLM_STORED[:6], "metadata")
_SGLANG_MAP: Final = (*_VLLM_STORED[:6], "cache_salt", "session_id", "lora_name")


@dataclass(frozen=True)
class Store:
    """Blocks that are stored: `tokens` of all of them in a row, `size` tokens each."""

    hashes: Sequence[int]
    tokens: Sequence[int]
    size: int = 16
    parent: int | None = None
    adapter: str | None = None
    medium: str | None = "GPU"
    group: int = 0
    kind: str = "full_attention"


@dataclass(frozen=True)
class Remove:
    hashes: Sequence[int]
    medium: str | None = "GPU"
    group: int = 0


@dataclass(frozen=True)
class Clear:
    """The cache is empty."""


Happening: TypeAlias = Store | Remove | Clear


@dataclass(frozen=True)
class Form:
    """One wire form.

    Attributes:
        name: The first version that has it.
        stored: The fields of BlockStored, in order.
        removed: The fields of BlockRemoved, in order.
        maps: Whether events are maps.
        hashes: `int`, `bytes` or `signed`.
        bigram: Whether tokens are pairs with the next one (EAGLE).
        replay_topic: Whether replies of the replay socket have a topic.
    """

    name: str
    stored: tuple[str, ...]
    removed: tuple[str, ...]
    maps: bool = False
    hashes: str = "int"
    bigram: bool = False
    replay_topic: bool = False

    @property
    def engine(self) -> str:
        return self.name.partition("-")[0]

    def batch(self, *happenings: Happening, ts: float = 1764000000.5, rank: int | None = 0) -> bytes:
        """Return the payload of one message."""
        pages = self.engine == "sglang"
        events = [self.event(one) for each in happenings for one in (_pages(each) if pages else [each])]
        return pack([ts, events, rank])

    def event(self, happening: Happening) -> Any:
        """Return one event as MessagePack would hold it."""
        if isinstance(happening, Store):
            tag, fields, values = "BlockStored", self.stored, self._stored(happening)
        elif isinstance(happening, Remove):
            tag, fields = "BlockRemoved", self.removed
            values = {
                "block_hashes": [self.name_of(one) for one in happening.hashes],
                "medium": happening.medium,
                "group_idx": happening.group,
                "locality": "LOCAL",
            }
        else:
            tag, fields, values = "AllBlocksCleared", (), {}
        if self.maps:
            return {"type": tag} | {field: values.get(field) for field in fields}
        return [tag, *(values.get(field) for field in fields)]

    def name_of(self, number: int) -> int | bytes:
        """Return the engine's name of a block, from 64 bits."""
        if self.hashes == "bytes":
            return number.to_bytes(32, "big")
        return number - (1 << 64) if self.hashes == "signed" and number >= 1 << 63 else number

    def _stored(self, store: Store) -> dict[str, Any]:
        tokens: list[Any] = list(store.tokens)
        if self.bigram:
            tokens = [[token, following] for token, following in zip(tokens, [*tokens[1:], 0], strict=True)]
        return {
            "block_hashes": [self.name_of(one) for one in store.hashes],
            "parent_block_hash": None if store.parent is None else self.name_of(store.parent),
            "token_ids": tokens,
            "block_size": store.size,
            "lora_id": 1 if store.adapter and self.engine == "vllm" else None,
            "medium": store.medium,
            "lora_name": store.adapter,
            "extra_keys": [[store.adapter] if store.adapter else None for _ in store.hashes],
            "group_idx": store.group,
            "kv_cache_spec_kind": store.kind,
            "locality": "LOCAL",
            "lookahead_token_ids": [],
            "metadata": {"cache_salt": "salt"},
            "cache_salt": "salt",
        }


def _vllm(name: str, stored: int, removed: int, **more: Any) -> Form:
    return Form(f"vllm-{name}", _VLLM_STORED[:stored], _VLLM_REMOVED[:removed], **more)


def _sglang(name: str, stored: tuple[str, ...], removed: int, **more: Any) -> Form:
    return Form(f"sglang-{name}", stored, _VLLM_REMOVED[:removed], **more)


FORMS: Final = (
    _vllm("0.9", 5, 1),
    _vllm("0.10.2", 6, 2),
    _vllm("0.10.2-bytes", 6, 2, hashes="bytes"),
    _vllm("0.14.1", 7, 2),
    _vllm("0.18.1", 8, 2),
    _vllm("0.20.2", 9, 3),
    _vllm("0.22", 11, 3),
    _vllm("0.22-bytes", 11, 3, hashes="bytes"),
    _vllm("0.24", 11, 3, maps=True),
    _vllm("0.26", 12, 4, maps=True, replay_topic=True),
    _vllm("0.30", 14, 5, maps=True, replay_topic=True),
    _vllm("0.33", 15, 5, maps=True, replay_topic=True),
    _vllm("0.33-bytes", 15, 5, maps=True, hashes="bytes", replay_topic=True),
    _sglang("0.4.9", _SGLANG_ARRAY[:5], 1),
    _sglang("0.5.9", _SGLANG_ARRAY[:6], 2, hashes="signed"),
    _sglang("0.5.18", _SGLANG_ARRAY, 2, hashes="signed"),
    _sglang("0.5.18-bigram", _SGLANG_ARRAY, 2, hashes="signed", bigram=True),
    _sglang("0.5.20", _SGLANG_MAP[:8], 2, maps=True, hashes="signed"),
    _sglang("0.5.22", _SGLANG_MAP, 2, maps=True, hashes="signed", replay_topic=True),
    _sglang("0.5.22-bigram", _SGLANG_MAP, 2, maps=True, hashes="signed", bigram=True, replay_topic=True),
)


def form(name: str) -> Form:
    """Return the form that begins with a version."""
    return next(each for each in FORMS if each.name == name)


def pack(value: Any) -> bytes:
    """Return MessagePack."""
    return msgspec.msgpack.encode(value)


def captured(name: str) -> list[list[bytes]]:
    """Return the frames of each message that a real vLLM 0.32 sent: `kv-main` or `kv-evict`."""
    lines = (CAPTURES / f"{name}.hex.jsonl").read_text().splitlines()
    return [[bytes.fromhex(frame) for frame in json.loads(line)["frames"]] for line in lines]


def _pages(happening: Happening) -> Iterable[Happening]:
    """Take a store apart: SGLang has an event for each page."""
    if not isinstance(happening, Store):
        return [happening]
    parents = [happening.parent, *happening.hashes]
    return [
        replace(
            happening,
            hashes=[name],
            tokens=happening.tokens[at * happening.size : (at + 1) * happening.size],
            parent=parents[at],
        )
        for at, name in enumerate(happening.hashes)
    ]

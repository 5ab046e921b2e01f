"""Large payloads: opened event by event, and only as what an event may be.

A byte of MessagePack may become eighty of Python: an empty list, an empty map.
A payload of the usual size is decoded as it is. In a larger one the number of
events, hashes and tokens is bounded, and what else an event has must be a
single value, or is passed over undecoded.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

__all__ = ["LARGE", "open_event", "open_large"]

# As many bytes may become five megabytes of objects.
LARGE: Final = 64 * 1024
_MOST_EVENTS: Final = 65_536

_Value: TypeAlias = str | int | float | bool | None
_Hashes: TypeAlias = Annotated[list[int | bytes], Meta(max_length=131_072)]
# SGLang's pairs (EAGLE) come one page at a time.
_Tokens: TypeAlias = Annotated[list[int | tuple[int, int]], Meta(max_length=1_048_576)] | None


class _Batch(Struct, array_like=True):
    ts: float
    events: Annotated[list[Raw], Meta(max_length=_MOST_EVENTS)]


class _BatchMap(Struct):
    ts: float
    events: Annotated[list[Raw], Meta(max_length=_MOST_EVENTS)]


class _Tag(Struct, array_like=True):
    type: str


class _TagMap(Struct):
    type: str


class _Stored(Struct, array_like=True):
    type: str
    block_hashes: _Hashes
    parent_block_hash: Raw
    token_ids: _Tokens
    block_size: _Value = None
    lora_id: _Value = None
    medium: _Value = None
    lora_name: _Value = None
    extra_keys: Raw = Raw()
    group_idx: _Value = None
    kv_cache_spec_kind: _Value = None


class _Removed(Struct, array_like=True):
    type: str
    block_hashes: _Hashes
    medium: _Value = None
    group_idx: _Value = None


class _EventMap(Struct):
    type: str
    block_hashes: _Hashes = msgspec.field(default_factory=list)
    token_ids: _Tokens = None
    block_size: _Value = None
    lora_id: _Value = None
    medium: _Value = None
    lora_name: _Value = None
    group_idx: _Value = None
    kv_cache_spec_kind: _Value = None
    locality: _Value = None


_decoder: Final = msgspec.msgpack.Decoder()
_ARRAY_FORMS: Final[dict[str, type[Struct]]] = {"BlockStored": _Stored, "BlockRemoved": _Removed}


def open_large(payload: bytes) -> list[Any]:
    """Return time and events of a batch, the events still encoded.

    Raises:
        msgspec.DecodeError: It is no batch, or has too many events.
    """
    batch = _decode(payload, _BatchMap if _is_map(payload) else _Batch)
    return [batch.ts, batch.events]


def open_event(raw: Raw) -> Any:
    """Return an event as `msgspec.msgpack.decode` does, if it is small or has the form of one.

    Raises:
        msgspec.DecodeError: It is no event, or has too much in it.
    """
    if len(memoryview(raw)) <= LARGE:
        return _decoder.decode(raw)
    is_map = _is_map(raw)
    tag = _decode(raw, _TagMap if is_map else _Tag).type
    form = _ARRAY_FORMS.get(tag)
    if form is None:
        return [tag]
    return msgspec.structs.asdict(_decode(raw, _EventMap if is_map else form))


def _decode(data: bytes | Raw, form: type[Any]) -> Any:
    return msgspec.msgpack.decode(data, type=form)


def _is_map(data: bytes | Raw) -> bool:
    first = memoryview(data)[0]
    return 0x80 <= first <= 0x8F or first in (0xDE, 0xDF)

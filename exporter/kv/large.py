"""Decode large payloads event by event, with limits on their contents (docs/adr/0019).

One byte of MessagePack, such as an empty list, may become eighty bytes of Python
objects. A payload of the usual size is decoded in one go. In a larger one, the
numbers of events, hashes and tokens are limited. Every other field must be a single
value, or stays undecoded.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

__all__ = ["LARGE", "open_event", "open_large"]

# A payload of this size may become five megabytes of Python objects.
LARGE: Final = 64 * 1024
_MOST_EVENTS: Final = 65_536

_Value: TypeAlias = str | int | float | bool | None
_Hashes: TypeAlias = Annotated[list[int | bytes], Meta(max_length=131_072)]
# A token is an integer, or with EAGLE a pair of them (SGLang).
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
    """Return `[timestamp, events]` of a batch; each event is still encoded.

    Raises:
        msgspec.DecodeError: The payload is not a batch, or has too many events.
    """
    batch = _decode(payload, _BatchMap if _is_map(payload) else _Batch)
    return [batch.ts, batch.events]


def open_event(raw: Raw) -> Any:
    """Return an event as `msgspec.msgpack.decode` would; a large event only with its known fields.

    Raises:
        msgspec.DecodeError: It is not an event, or exceeds a limit.
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

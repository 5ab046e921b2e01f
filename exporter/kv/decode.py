"""Decode the engines' event batches, in every form that an engine version has sent.

    vLLM 0.9 to 0.23, SGLang 0.4.9 to 0.5.19    ["BlockStored", hashes, parent, tokens, ...]
    vLLM 0.24 on, SGLang 0.5.20 on              {"type": "BlockStored", "block_hashes": ..., ...}

A batch is `[ts, [event, ...], rank]`. The decoder ignores unknown fields and further
elements, and drops and counts unknown event types. A bad event is dropped alone, and
the others of its batch are decoded.

Token ids never leave this module, because they are the users' prompts.
"""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from exporter.kv.blockhash import hash_blocks
from exporter.kv.large import LARGE, open_event, open_large

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "CLEARED",
    "LONGEST_NAME",
    "REMOVED",
    "STORED",
    "Batch",
    "Cleared",
    "Drop",
    "EngineHash",
    "Event",
    "PayloadError",
    "Removed",
    "Stored",
    "decode",
]

EngineHash: TypeAlias = int | bytes


class Drop(StrEnum):
    """Why a message or an event was dropped: the `reason` label of `kthena_runtime_kv_events_dropped_total`."""

    FRAMES = "frames"  # not the three frames of an event message
    TOO_LARGE = "too_large"
    SEQUENCE = "sequence"  # a sequence number that no engine reaches
    TOPIC = "topic"  # excluded by KV_EVENTS_TOPIC_FILTER
    DUPLICATE = "duplicate"  # a replay brought this message earlier
    LOST = "lost"  # missing in the sequence, and not replayed
    PAYLOAD = "payload"  # not an event batch
    INVALID = "invalid"
    UNKNOWN_TYPE = "unknown_type"
    TIER = "tier"  # not in GPU memory, so of no use to the router
    NO_TOKENS = "no_tokens"
    UNNAMED_ADAPTER = "unnamed_adapter"  # only a numeric lora_id: the router's key needs the name
    FULL = "full"  # no room in the ledger (KV_EVENTS_MAX_BLOCKS)


class PayloadError(ValueError):
    """A message is not an event batch; the text contains nothing of it."""


# The events' names on the wire.
STORED: Final = "BlockStored"
REMOVED: Final = "BlockRemoved"
CLEARED: Final = "AllBlocksCleared"


class Stored(NamedTuple):
    """Blocks that the engine stored.

    Attributes:
        hashes: The engine's hash of each block.
        blocks: The router's hash of each block, in the same order.
        adapter: The LoRA adapter's name; `None` for the base model.
        group: The KV-cache group of a hybrid model; 0 without groups.
        kind: The group's kind of attention; `None` if the engine does not send it.
    """

    hashes: Sequence[EngineHash]
    blocks: Sequence[int]
    adapter: str | None = None
    group: int = 0
    kind: str | None = None


class Removed(NamedTuple):
    """Blocks that the engine removed; a block that it stored twice must be removed twice."""

    hashes: Sequence[EngineHash]
    group: int = 0


class Cleared(NamedTuple):
    """The engine removed all its blocks, of all groups."""


Event: TypeAlias = Stored | Removed | Cleared


class Batch(NamedTuple):
    """The decoded payload of one message.

    Attributes:
        timestamp: When the engine made the batch, unix seconds.
        events: The decoded events, in order.
        dropped: Number of dropped events by reason.
    """

    timestamp: float
    events: list[Event]
    dropped: Mapping[Drop, int]


# The order of the elements in the array form, behind the tag.
_STORED_FIELDS: Final = (
    "block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name", "extra_keys",
    "group_idx", "kv_cache_spec_kind",
)  # fmt: skip
_REMOVED_FIELDS: Final = ("block_hashes", "medium", "group_idx")

# Media from which the engine can use a block immediately; blocks of other tiers must be loaded first.
_USABLE_MEDIA: Final = frozenset({None, "GPU"})

_HASH_TYPES: Final = frozenset({int, bytes})
_LONGEST_HASH: Final = 64  # bytes
# Characters of an adapter's name.
LONGEST_NAME: Final = 512
_MOST_GROUPS: Final = 1024

_decoder: Final = msgspec.msgpack.Decoder()


class _DropError(Exception):
    def __init__(self, reason: Drop) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(payload: bytes) -> Batch:
    """Decode the payload of a message.

    Raises:
        PayloadError: The payload is not an event batch.
    """
    timestamp, raw_events = _open(payload)
    events: list[Event] = []
    dropped: dict[Drop, int] = {}
    for raw in raw_events:
        try:
            events.append(_event(open_event(raw) if isinstance(raw, msgspec.Raw) else raw))
        except _DropError as drop:
            dropped[drop.reason] = dropped.get(drop.reason, 0) + 1
        except (TypeError, ValueError, OverflowError, KeyError, RecursionError):
            dropped[Drop.INVALID] = dropped.get(Drop.INVALID, 0) + 1
    return Batch(timestamp, events, dropped)


def _open(payload: bytes) -> tuple[float, list[Any]]:
    try:
        batch = open_large(payload) if len(payload) > LARGE else _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = "not MessagePack"
        raise PayloadError(message) from None
    if isinstance(batch, dict):
        batch = [batch.get("ts"), batch.get("events")]
    if not isinstance(batch, list) or len(batch) < 2:
        message = "not an event batch"
        raise PayloadError(message)
    timestamp, events = batch[:2]
    if not isinstance(timestamp, (int, float)) or not isfinite(timestamp) or not isinstance(events, list):
        message = "a batch without time or events"
        raise PayloadError(message)
    return float(timestamp), events


def _event(raw: Any) -> Event:
    tag = raw["type"] if isinstance(raw, dict) else raw[0] if isinstance(raw, list) and raw else None
    kind = _KINDS.get(tag) if isinstance(tag, str) else None
    if kind is None:
        raise _DropError(Drop.UNKNOWN_TYPE if isinstance(tag, str) else Drop.INVALID)
    fields, make = kind
    return make(raw if isinstance(raw, dict) else dict(zip(fields, raw[1:], strict=False)))


def _stored(fields: Mapping[str, Any]) -> Stored:
    _check_tier(fields)
    hashes = _hashes(fields)
    tokens = fields["token_ids"]
    if not tokens:
        # Placeholders for offloaded blocks. Without tokens, there is no router's hash.
        raise _DropError(Drop.NO_TOKENS)
    adapter = _adapter(fields)
    if not isinstance(tokens, list):
        message = "tokens are a list"
        raise TypeError(message)
    if isinstance(tokens[0], list):
        # SGLang with EAGLE sends bigrams: the first of each pair is the token at that position.
        tokens = [first for first, _ in tokens]
    size = _block_size(len(tokens), len(hashes), fields.get("block_size"))
    kind = fields.get("kv_cache_spec_kind")
    return Stored(
        hashes, hash_blocks(tokens, size), adapter, _group(fields), kind if isinstance(kind, str) else None
    )  # fmt: skip


def _removed(fields: Mapping[str, Any]) -> Removed:
    _check_tier(fields)
    return Removed(_hashes(fields), _group(fields))


def _cleared(fields: Mapping[str, Any]) -> Cleared:  # noqa: ARG001 - one of three alike
    return Cleared()


_KINDS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Event]]]] = {
    STORED: (_STORED_FIELDS, _stored),
    REMOVED: (_REMOVED_FIELDS, _removed),
    CLEARED: ((), _cleared),
}


def _check_tier(fields: Mapping[str, Any]) -> None:
    if fields.get("medium") not in _USABLE_MEDIA or fields.get("locality") == "REMOTE":
        raise _DropError(Drop.TIER)


def _hashes(fields: Mapping[str, Any]) -> list[EngineHash]:
    hashes: Any = fields["block_hashes"]
    kinds = set(map(type, hashes)) if isinstance(hashes, list) else {type(hashes)}
    if not kinds <= _HASH_TYPES or not isinstance(hashes, list):
        message = "hashes are integers or bytes"
        raise TypeError(message)
    if bytes in kinds and any(type(each) is bytes and len(each) > _LONGEST_HASH for each in hashes):
        message = "a hash is not that long"
        raise ValueError(message)
    return hashes


def _adapter(fields: Mapping[str, Any]) -> str | None:
    name = fields.get("lora_name")
    if not isinstance(name, str):  # SGLang's array form has a map in this position
        if fields.get("lora_id") is not None:
            raise _DropError(Drop.UNNAMED_ADAPTER)
        return None
    if len(name) > LONGEST_NAME:
        message = "a name is not that long"
        raise ValueError(message)
    return name


def _group(fields: Mapping[str, Any]) -> int:
    group = fields.get("group_idx")
    if not isinstance(group, int):
        return 0
    if not 0 <= group < _MOST_GROUPS:
        message = "a group has a small number"
        raise ValueError(message)
    return group


def _block_size(tokens: int, blocks: int, declared: object) -> int:
    """Return the number of tokens per block; the last block may have fewer (vLLM 0.33).

    The declared size counts only if it fits. Otherwise the tokens are divided evenly among the blocks.
    """
    if isinstance(declared, int) and declared > 0 and -(-tokens // declared) == blocks:
        return declared
    if blocks and tokens % blocks == 0:
        return tokens // blocks
    message = "the tokens do not make up the blocks"
    raise ValueError(message)

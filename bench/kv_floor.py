"""The floor of the KV benchmark: the same commands through redis-py's pipeline, and nothing around it.

What a program costs that only writes: no subscription, no gaps, no ledger. It
starts from the router's hashes, or (`decode`) from the engine's messages.

    python -m bench.kv_floor REDIS_PORT DATABASE
"""

from __future__ import annotations

import sys
from array import array
from hashlib import sha256
from itertools import islice
from time import perf_counter, process_time, time
from typing import TYPE_CHECKING, Any, Final

import redis
from msgspec.msgpack import Decoder

from bench.kv_blocks import MODEL, POD, Load, at
from bench.kv_worker import answer, orders
from bench.process import HOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["main"]

_BATCH: Final = 1000


class Floor:
    """Writes hashes as fast as redis-py does."""

    def __init__(self, port: int, database: int) -> None:
        # The runtime asks for the same protocol; and a pipeline without MULTI is its like.
        self._redis = redis.Redis(HOST, port, database, protocol=2)
        self._hashes: dict[Load, list[int]] = {}
        self._payloads: dict[Load, list[bytes]] = {}

    def load(self, **load: int) -> dict[str, Any]:
        """Make hashes and messages."""
        what = Load(**load)
        self._hashes[what] = what.hashes()
        self._payloads[what] = [at(0, tail) for tail in what.payloads()]
        return {}

    def run(self, *, decode: bool, **load: int) -> dict[str, Any]:
        """Write a load; return the seconds and the CPU seconds that it took."""
        what = Load(**load)
        hashes = _decoded(self._payloads[what]) if decode else iter(self._hashes[what])
        started, before = perf_counter(), process_time()
        self._write(hashes)
        seconds, cpu = perf_counter() - started, process_time() - before
        written = self._redis.dbsize()
        self._redis.flushdb()
        if written != what.blocks + 1:
            message = f"{written} keys of {what.blocks + 1}"
            raise RuntimeError(message)
        return {"seconds": seconds, "cpu": cpu}

    def _write(self, hashes: Iterator[int]) -> None:
        now = int(time())
        while batch := list(islice(hashes, _BATCH)):
            with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.sadd(f"kthena:kv:pod:{POD}", *[f"{MODEL}@{one}" for one in batch])
                for one in batch:
                    pipeline.hset(f"matrix:kv:block:{MODEL}@{one}", POD, now)
                pipeline.execute()


def _decoded(payloads: Iterable[bytes]) -> Iterator[int]:
    """Yield the hash of each block, in the least code that finds it."""
    decode = Decoder().decode
    for payload in payloads:
        for event in decode(payload)[1]:
            tokens = array("I", event["token_ids"])
            tokens.byteswap()
            data, size = tokens.tobytes(), 4 * event["block_size"]
            for start in range(0, len(data), size):
                yield int.from_bytes(sha256(data[start : start + size]).digest()[:8], "big") & 0x7FFFFFFFFFFFFFFF


def main(arguments: Sequence[str]) -> None:
    """Do as told until standard input ends."""
    floor = Floor(*map(int, arguments))
    for order in orders():
        answer(**getattr(floor, order.pop("do"))(**order))


if __name__ == "__main__":
    main(sys.argv[1:])

"""This pod's part of the router's index in Redis.

    HASH  matrix:kv:block:{model}@{block}   {pod} -> unix seconds     the router's (kthena, kvcache_aware.go)
    SET   kthena:kv:pod:{pod}               {model}@{block}, ...      what this pod wrote
                                            !{instance}               which runtime wrote it

The set is written before a field and cleaned after it, so it names every field
of this pod whatever happens in between: a crash is cleaned up, and a lost Redis
noticed, in proportion to this pod's own blocks. Nothing here scans the keyspace
or touches another pod's field.

Commands are packed by hand over redis-py's connection: its own packing is
several times what the rest of a block costs (docs/adr/0007).
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from redis.exceptions import InvalidResponse, ResponseError

from exporter.kv.decode import LONGEST_NAME
from exporter.kv.replies import BoundedParser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis import Redis
    from redis.connection import Connection

    from exporter.kv.ledger import Change

__all__ = ["PodIndex"]

_BLOCK_PREFIX: Final = b"matrix:kv:block:"
_POD_PREFIX: Final = b"kthena:kv:pod:"
_GUARD: Final = b"!"
# The set of a pod that never comes back; the router drops its fields after a day.
_EXPIRY_SECONDS: Final = 48 * 3600
_SCAN_COUNT: Final = 1000
# Two million members, ten times what the ledger has room for.
_MOST_SCANS: Final = 2000
_MOST_MARKS: Final = 1000
_LONGEST_HASH: Final = len(str(1 << 63))
# A character of a name has up to four bytes.
_LONGEST_MEMBER: Final = 4 * LONGEST_NAME + len("@") + _LONGEST_HASH
# What redis-py raises when a reply is of another kind than the command's.
_ODD: Final = (AttributeError, KeyError, TypeError, ValueError)
_ANY_BYTES: Final = "surrogateescape"


class PodIndex:
    """Writes and removes this pod's fields. Not thread-safe: the pump has it alone.

    Every method raises redis.RedisError when Redis does not do as it is told.
    """

    def __init__(self, client: Redis, pod: str, instance: str) -> None:
        """Work for `pod`; `instance` names this very process."""
        self._client = client
        self._pod = pod.encode()
        self._set = _POD_PREFIX + self._pod
        self._guard = _GUARD + instance.encode()
        self._connects = 0
        client.connection_pool.update_connection_kwargs(  # type: ignore[no-untyped-call]
            redis_connect_func=self._connect
        )

    def write(self, changes: Sequence[Change], now: int) -> None:
        """Bring fields into Redis and out of it, all or nobody knows which."""
        added = [_member(change) for change in changes if change.present]
        removed = [_member(change) for change in changes if not change.present]
        commands = []
        if added:
            rest = _bulk(self._pod) + _bulk(b"%d" % now)
            commands.append(_pack(b"SADD", self._set, *added))
            commands += [_HSET % (_PREFIX_LENGTH + len(member), member, rest) for member in added]
        if removed:
            rest = _bulk(self._pod)
            commands += [_HDEL % (_PREFIX_LENGTH + len(member), member, rest) for member in removed]
            commands.append(_pack(b"SREM", self._set, *removed))
        try:
            self._run(commands)
        except ResponseError:
            if removed:  # a field that Redis did not let go must not lose its name
                self._run([_pack(b"SADD", self._set, *removed)])
            raise

    def claim(self) -> None:
        """Put this process's mark on the set, and the marks of others off it."""
        members = islice(self._members(_GUARD + b"*"), _MOST_MARKS)
        marks = [member for member in members if b"@" not in member and member != self._guard]
        commands = [_pack(b"SREM", self._set, *marks)] if marks else []
        self._run([*commands, _pack(b"SADD", self._set, self._guard), self._expire()])

    def is_claimed(self) -> bool:
        """Tell whether the mark is still there; without it Redis lost what was written."""
        return bool(self._client.sismember(self._set.decode(), self._guard.decode()))

    def server_id(self) -> str:
        """Return what a restart or failover changes: the server's run id, or else which connection this is."""
        try:
            return str(self._client.info("server")["run_id"])
        except (ResponseError, *_ODD):
            return f"connection {self._connects}"

    def remembered(self) -> Iterator[tuple[str, int]]:
        """Yield model and block of every field that this pod wrote and did not remove."""
        for member in self._members():
            model, at, block = member.rpartition(b"@")
            if at and block.isdigit() and len(block) <= _LONGEST_HASH:
                yield model.decode(errors=_ANY_BYTES), int(block)

    def renew(self) -> None:
        """Keep the set from expiring."""
        self._run([self._expire()])

    def forget(self) -> None:
        """Remove the set; its fields must be gone."""
        self._run([_pack(b"UNLINK", self._set)])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _connect(self, connection: Connection) -> None:
        connection.on_connect()  # type: ignore[no-untyped-call]
        self._connects += 1

    def _expire(self) -> bytes:
        return _pack(b"EXPIRE", self._set, b"%d" % _EXPIRY_SECONDS)

    def _members(self, match: bytes | None = None) -> Iterator[bytes]:
        """Yield the set's members, but for those that are too long to be of this pod."""
        cursor = 0
        for _ in range(_MOST_SCANS):
            try:
                cursor, members = self._client.sscan(self._set.decode(), cursor, match=match, count=_SCAN_COUNT)
                found = [bytes(member) for member in members if len(member) <= _LONGEST_MEMBER]  # type: ignore[arg-type]
            except _ODD:
                raise InvalidResponse("not a scan") from None
            yield from found
            if not cursor:
                return
        raise InvalidResponse("a scan without end")

    def _run(self, commands: Sequence[bytes]) -> None:
        """Send commands in one piece and read every reply; raise the first error among them."""
        if not commands:
            return
        pool = self._client.connection_pool
        connection: Connection = pool.get_connection()
        try:
            connection.send_packed_command([b"".join(commands)])  # type: ignore[no-untyped-call]
            errors = _parser(connection).read_errors(len(commands))
        except BaseException:
            # Replies may still be under way: nobody must take them for the next command's.
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        finally:
            pool.release(connection)
        if errors:
            raise errors[0]


def _parser(connection: Connection) -> BoundedParser:
    """Return what reads a connection's replies: many at a time, as redis-py's own `read_response` does not."""
    parser = connection._parser  # noqa: SLF001 - there is no other way to it
    assert isinstance(parser, BoundedParser)  # noqa: S101 - as `exporter.kv.events` makes connections
    return parser


def _member(change: Change) -> bytes:
    return b"%b@%d" % (change.entry.model.encode(errors=_ANY_BYTES), change.entry.block)


def _pack(*words: bytes) -> bytes:
    """Return a command as Redis reads it: an array of bulk strings."""
    return b"*%d\r\n%b" % (len(words), b"".join(map(_bulk, words)))


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


# A command up to its key, the key and the rest of it.
_HSET: Final = b"*4\r\n" + _bulk(b"HSET") + b"$%d\r\n" + _BLOCK_PREFIX + b"%b\r\n%b"
_HDEL: Final = b"*3\r\n" + _bulk(b"HDEL") + b"$%d\r\n" + _BLOCK_PREFIX + b"%b\r\n%b"
_PREFIX_LENGTH: Final = len(_BLOCK_PREFIX)

"""This pod's part of the router's index in Redis.

    HASH  matrix:kv:block:{model}@{block}   {pod} -> unix seconds     defined by the router (kvcache_aware.go)
    SET   kthena:kv:pod:{pod}               {model}@{block}, ...      the fields that this pod wrote
                                            !{instance}               the runtime process that wrote them

A member enters the set before its field is written, and leaves it after the field is
removed. The set therefore names every field of this pod, even after a crash. With
the set, the runtime cleans up after a crash and notices that Redis lost data, at a
cost in proportion to this pod's own blocks. It never scans the keyspace, and never
touches the fields of other pods.

Commands are packed by hand and sent over redis-py's connection. redis-py's own
packing costs several times as much as the rest of a block (docs/adr/0007).
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
# For the set of a pod that never comes back. The router drops the pod's fields after a day.
_EXPIRY_SECONDS: Final = 48 * 3600
_SCAN_COUNT: Final = 1000
# Two million members: ten times the default limit of the ledger.
_MOST_SCANS: Final = 2000
_MOST_MARKS: Final = 1000
_LONGEST_HASH: Final = len(str(1 << 63))
# A character of a name has up to four bytes.
_LONGEST_MEMBER: Final = 4 * LONGEST_NAME + len("@") + _LONGEST_HASH
# Exceptions of redis-py when a reply has another type than the command's.
_ODD: Final = (AttributeError, KeyError, TypeError, ValueError)
_ANY_BYTES: Final = "surrogateescape"


class PodIndex:
    """Writes and removes this pod's fields. Not thread-safe: only the pump uses it.

    Every method that talks to Redis raises redis.RedisError when an operation fails.
    """

    def __init__(self, client: Redis, pod: str, instance: str) -> None:
        """Work for `pod`; `instance` identifies this process, and no earlier or later one."""
        self._client = client
        self._pod = pod.encode()
        self._set = _POD_PREFIX + self._pod
        self._guard = _GUARD + instance.encode()
        self._connects = 0
        client.connection_pool.update_connection_kwargs(  # type: ignore[no-untyped-call]
            redis_connect_func=self._connect
        )

    def write(self, changes: Sequence[Change], now: int) -> None:
        """Write and remove fields in one pipeline, with `now` (unix seconds) as the value.

        It is not a transaction. After an error, any part of the changes may be in Redis;
        every command may be repeated.
        """
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
            # HDEL may have failed although SREM succeeded. A field that is still there must stay in the set.
            if removed:
                self._run([_pack(b"SADD", self._set, *removed)])
            raise

    def claim(self) -> None:
        """Put this process's mark into the set, and remove the marks of earlier processes."""
        members = islice(self._members(_GUARD + b"*"), _MOST_MARKS)
        marks = [member for member in members if b"@" not in member and member != self._guard]
        commands = [_pack(b"SREM", self._set, *marks)] if marks else []
        self._run([*commands, _pack(b"SADD", self._set, self._guard), self._expire()])

    def is_claimed(self) -> bool:
        """Tell whether this process's mark is still in the set; if not, Redis lost data."""
        return bool(self._client.sismember(self._set.decode(), self._guard.decode()))

    def server_id(self) -> str:
        """Return an id that changes when Redis restarts or fails over.

        It is the server's run id. If INFO is not permitted, it is the number of the connection.
        """
        try:
            return str(self._client.info("server")["run_id"])
        except (ResponseError, *_ODD):
            return f"connection {self._connects}"

    def remembered(self) -> Iterator[tuple[str, int]]:
        """Yield the model and block of every field that the set names: those of earlier processes, too."""
        for member in self._members():
            model, at, block = member.rpartition(b"@")
            if at and block.isdigit() and len(block) <= _LONGEST_HASH:
                yield model.decode(errors=_ANY_BYTES), int(block)

    def renew(self) -> None:
        """Postpone the expiry of the set."""
        self._run([self._expire()])

    def forget(self) -> None:
        """Remove the set. Call it last: without the set, the fields cannot be found again."""
        self._run([_pack(b"UNLINK", self._set)])

    def close(self) -> None:
        self._client.close()

    def _connect(self, connection: Connection) -> None:
        connection.on_connect()  # type: ignore[no-untyped-call]
        self._connects += 1

    def _expire(self) -> bytes:
        return _pack(b"EXPIRE", self._set, b"%d" % _EXPIRY_SECONDS)

    def _members(self, match: bytes | None = None) -> Iterator[bytes]:
        """Yield the set's members, except those that are too long to be the runtime's.

        Raises:
            InvalidResponse: The replies are not those of SSCAN, or the scan does not end.
        """
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
        """Send all commands in one write and read every reply; raise the first error among them."""
        if not commands:
            return
        pool = self._client.connection_pool
        connection: Connection = pool.get_connection()
        try:
            connection.send_packed_command([b"".join(commands)])  # type: ignore[no-untyped-call]
            errors = _parser(connection).read_errors(len(commands))
        except BaseException:
            # Replies may still arrive. On this connection, they would be read as replies to the next command.
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        finally:
            pool.release(connection)
        if errors:
            raise errors[0]


def _parser(connection: Connection) -> BoundedParser:
    """Return a connection's parser, which reads many replies at a time; redis-py's `read_response` reads one."""
    parser = connection._parser  # noqa: SLF001 - there is no other way to it
    assert isinstance(parser, BoundedParser)  # noqa: S101 - as `exporter.kv.events` makes connections
    return parser


def _member(change: Change) -> bytes:
    return b"%b@%d" % (change.entry.model.encode(errors=_ANY_BYTES), change.entry.block)


def _pack(*words: bytes) -> bytes:
    """Return a command in RESP: an array of bulk strings."""
    return b"*%d\r\n%b" % (len(words), b"".join(map(_bulk, words)))


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


# Commands with placeholders for the key's length, the end of the key, and the remaining words.
_HSET: Final = b"*4\r\n" + _bulk(b"HSET") + b"$%d\r\n" + _BLOCK_PREFIX + b"%b\r\n%b"
_HDEL: Final = b"*3\r\n" + _bulk(b"HDEL") + b"$%d\r\n" + _BLOCK_PREFIX + b"%b\r\n%b"
_PREFIX_LENGTH: Final = len(_BLOCK_PREFIX)

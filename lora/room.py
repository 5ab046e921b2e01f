"""The limit for the number of adapters. The runtime remembers each adapter until it is unloaded, which costs memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lora import codes
from lora.errors import LoraError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lora.adapter import Wanted
    from lora.files.installation import Extras
    from lora.record import Record
    from storage.request.config import Config

__all__ = ["MOST_BYTES", "Room"]

# About 3,000 adapters with names, directories and sources of usual lengths.
MOST_BYTES: Final = 2 << 20
# Bytes that an adapter takes in addition to its strings.
_EACH: Final = 512


class Room:
    """The memory budget of all adapters together."""

    def __init__(self, config: Config) -> None:
        """Values of the pod's own `config` cost nothing: all adapters share them."""
        self._config = config

    def check(self, records: Iterable[Record], wanted: Wanted, extras: Extras | None) -> None:
        """Check whether the budget has room for `wanted`, which replaces the adapter of the same name.

        Raises:
            LoraError: There is no room; the message says how much all adapters would take.
        """
        others = [record for record in records if record.name != wanted.name]
        known = sum(
            max(self._cost(record.goal.wanted, record.goal.extras), self._cost(record.desired)) for record in others
        )
        total = known + self._cost(wanted, extras)
        if total > MOST_BYTES:
            raise LoraError(
                codes.TOO_MANY_ADAPTERS,
                f"there are {len(others):,} adapters, and with {wanted.name!r} their names, directories, sources and "
                f"configurations would take {total:,} bytes; the limit is {MOST_BYTES:,}: unload some first",
            )

    def _cost(self, wanted: Wanted | None, extras: Extras | None = None) -> int:
        texts = (wanted.name, str(wanted.path), wanted.source or "") if wanted else ()
        config = extras.config.bytes_beyond(self._config) if extras else 0
        return _EACH + sum(len(text.encode(errors="surrogatepass")) for text in texts) + config

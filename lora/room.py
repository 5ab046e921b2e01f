"""How many adapters there may be: each is remembered until it is unloaded, so what they cost together has a limit."""

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

# Room for about 3,000 adapters whose names, directories and sources have usual lengths.
MOST_BYTES: Final = 2 << 20
# What an adapter takes besides its texts.
_EACH: Final = 512


class Room:
    """What all adapters may cost together."""

    def __init__(self, config: Config) -> None:
        """Count no value of the pod's own `config`: adapters share those."""
        self._config = config

    def check(self, records: Iterable[Record], wanted: Wanted, extras: Extras | None) -> None:
        """Refuse another adapter when there is no room for it; one that takes its place under a name does not add to it.

        Raises:
            LoraError: There is no room.
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

"""A scrape each second, shown as it comes, while all programs run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

from demo.child import DemoError
from demo.history import METRICS
from demo.keyboard import keyboard
from demo.scrape import scrape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demo.child import Child
    from demo.display import Display
    from demo.history import History
    from demo.signals import Pauses

__all__ = ["Watch"]

_SCRAPE_EVERY: Final = 1.0
_PATIENCE: Final = 5
_NAMES: Final = tuple(metric.name for metric in METRICS)


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched, and where it shows."""

    url: str
    children: Sequence[Child]
    history: History
    display: Display
    pauses: Pauses

    def run(self, duration: float) -> None:
        """Watch for `duration` seconds, which may be infinite.

        Raises:
            DemoError: A child ended, or the runtime does not answer.
            OutputGoneError: Nobody reads.
            StopDemo: Somebody asked for the end.
        """
        began = due = monotonic()
        with self.display, keyboard(sys.stdin, wanted=self.display.drawn) as keys:
            if keys is not None:
                self.pauses.watch_keys(keys)
            while due < began + duration:
                self._scrape()
                self.display.show(self.history, monotonic() - began)
                due = max(due + _SCRAPE_EVERY, monotonic())
                while self.pauses.pause(min(due, began + duration) - monotonic()):
                    self.display.resize()

    def _scrape(self) -> None:
        """Add a scrape; a busy machine may miss its time once or twice."""
        reason: OSError | None = None
        for _ in range(_PATIENCE):
            for child in self.children:
                child.check()
            try:
                self.history.add(scrape(self.url, _NAMES))
            except OSError as error:
                reason = error
                self.pauses.pause(_SCRAPE_EVERY)
            else:
                return
        raise DemoError(f"the runtime does not answer: {reason}")

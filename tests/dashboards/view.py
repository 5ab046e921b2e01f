"""What Grafana asks Prometheus for when somebody looks at a dashboard, and what it gets.

::

    view = View(cluster.prometheus, seconds=30)
    for series in view.ask(question):
        series.labels, series.values

A view stays at the moment when it was made, whatever comes after.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from time import time
from typing import TYPE_CHECKING, Any, Final

from simulators.waiting import PATIENCE, wait_until
from tests.dashboards.targets import Target, substitute, targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from simulators.prometheus import Prometheus
    from tests.dashboards.targets import VariableQuery

__all__ = ["RATE_SECONDS", "Question", "Series", "View", "any_of", "questions"]

_ENGINES: Final = ("vllm", "sglang")
# What Grafana makes of `$__rate_interval` is four scrapes, which are a second apart here; on a busy machine one or two
# of them may be missing.
RATE_SECONDS: Final = 6
_STEP: Final = "1"
# What Grafana escapes in values that are chosen by name.
_SPECIAL: Final = re.compile(r"[$^*{}\[\]+?.()|]")


@dataclass(frozen=True, slots=True)
class Question:
    """A query of a panel as it is asked: in a row that is repeated for each engine, once for each."""

    target: Target
    engine: str = ""

    @property
    def name(self) -> str:
        return f"{self.target.name}:{self.engine}" if self.engine else self.target.name


@dataclass(frozen=True, slots=True)
class Series:
    """A series of an answer: its labels, and its values over time, or the one of an instant."""

    labels: Mapping[str, str]
    values: tuple[float, ...]

    @property
    def finite(self) -> bool:
        """Whether nothing is NaN or infinite."""
        return all(map(isfinite, self.values))


def questions() -> list[Question]:
    """Return every query of every panel, as often as it is asked."""
    return [
        Question(target, engine)
        for target in targets()
        for engine in (_ENGINES if target.repeat == "engine" else ("",))
    ]


def any_of(values: Iterable[str]) -> str:
    """Return what stands for a variable of which several values are chosen by name."""
    escaped = [_SPECIAL.sub(lambda special: rf"\\{special[0]}", value) for value in values]
    return f"({'|'.join(escaped)})"


class View:
    """The last so many `seconds` of a Prometheus.

    Attributes:
        end: When it was made, in Unix seconds.
    """

    def __init__(self, prometheus: Prometheus, *, seconds: int) -> None:
        """Look at the time until now, as soon as all targets were scraped once more."""
        self._prometheus = prometheus
        self._range = f"{seconds}s"
        self.end = now = time()
        self._instant = {"time": str(now)}
        self._span = {"start": str(now - seconds), "end": str(now)}
        complete = f"min(timestamp(up)) > {now}"
        wait_until(lambda: prometheus.query(complete), "the next scrape", every=0.1)

    def ask(self, question: Question, **chosen: str) -> list[Series]:
        """Ask as the panel does, with everything chosen unless `chosen` says otherwise."""
        expression = self._expression(question, **chosen)
        return self.now(expression) if question.target.instant else self.over_time(expression)

    def ever(self, question: Question) -> list[Series]:
        """Ask for all of the view's time, also what the panel asks for its end."""
        return self.over_time(self._expression(question))

    def choices(self, variable: VariableQuery, **chosen: str) -> set[str]:
        """Return what a variable offers."""
        expression = self._substituted(variable.query, **chosen)
        if variable.label:
            return set(self._data(f"label/{variable.label}/values", self._span | {"match[]": expression}))
        shown = " ".join(f'{name}="{value}"' for each in self.now(expression) for name, value in each.labels.items())
        return set(re.findall(variable.regex, shown))

    def now(self, expression: str) -> list[Series]:
        """Evaluate at the view's end."""
        found = self._data("query", self._instant | {"query": expression})["result"]
        return [Series(each["metric"], (float(each["value"][1]),)) for each in found]

    def over_time(self, expression: str) -> list[Series]:
        """Evaluate at each second of the view; `$__range` and the like are replaced."""
        parameters = self._span | {"step": _STEP, "query": self._substituted(expression)}
        found = self._data("query_range", parameters)["result"]
        return [Series(each["metric"], tuple(float(value) for _, value in each["values"])) for each in found]

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules that Prometheus evaluates, with how that went."""
        return [rule for group in self._data("rules", {})["groups"] for rule in group["rules"]]

    def _expression(self, question: Question, **chosen: str) -> str:
        by_row = {"engine": question.engine} if question.engine else {}
        return self._substituted(question.target.expr, **by_row, **chosen)

    def _substituted(self, expression: str, **chosen: str) -> str:
        return substitute(expression, rate_interval=f"{RATE_SECONDS}s", range=self._range, **chosen)

    def _data(self, path: str, parameters: Mapping[str, str]) -> Any:
        url = f"{self._prometheus.url}/api/v1/{path}"
        answer = self._prometheus.session.get(url, params=parameters, timeout=PATIENCE)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        body = answer.json()
        assert not {"warnings", "infos"} & set(body), f"{parameters}: {body}"
        return body["data"]

"""The variables at the top of a dashboard, each narrowed by those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.telemetry.names import BUILD_INFO, ENGINE_INFO
from grafana.frame import DATASOURCE
from grafana.names import WAITING
from grafana.promql import PODS, RANGE, SERIES
from grafana.series import ON_TARGET

if TYPE_CHECKING:
    from grafana.style import Json

__all__ = ["DATASOURCES", "ENGINE", "ENGINE_CHAIN", "FIRST_TOKEN_SLO", "LABEL_FILTERS", "MODEL_CHAIN", "POD_CHAIN"]

# Kinds of queries, as Grafana numbers them.
_LABEL_VALUES: Final = 1
_QUERY_RESULT: Final = 3
_HIDDEN: Final = 2

# Bounds of buckets that vLLM and SGLang both have, in seconds, as they write them.
_SHARED_BOUNDS: Final = ("0.1", "1.0", "10.0")


def _query(name: str, label: str, query: str, *, kind: int = _LABEL_VALUES, everything: str | None = ".*") -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": dict(DATASOURCE),
        "query": {"qryType": kind, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "regex": "",
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        **({} if everything is None else {"allValue": everything}),
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "options": [],
        "skipUrlSync": False,
    }


def _chain(metric: str, **labels: str) -> tuple[Json, ...]:
    """Return one variable for each label, in order, each within the choices of those before it."""
    matchers: list[str] = []
    chain = []
    for name, label in labels.items():
        selected = f"{metric}{{{', '.join(matchers)}}}" if matchers else metric
        # Every scraped series has a job; other labels may be missing, and `.*` lets them.
        everything = ".*" if matchers else ".+"
        chain.append(_query(name, label, f"label_values({selected}, {name})", everything=everything))
        matchers.append(f'{name}=~"${name}"')
    return tuple(chain)


DATASOURCES: Final[Json] = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
    "regex": "",
    "refresh": 1,
    "multi": False,
    "includeAll": False,
    "hide": 0,
    "options": [],
    "skipUrlSync": False,
}

# For dashboards of the engines' metrics, and of the runtime's own, which have no model_name.
MODEL_CHAIN: Final = _chain(WAITING, job="Job", namespace="Namespace", model_name="Model", pod="Pod")
POD_CHAIN: Final = _chain(BUILD_INFO.name, job="Job", namespace="Namespace", pod="Pod")
# Somebody may scrape the engines, too. All jobs are those of runtimes here, or the engines' series would count twice.
ENGINE_CHAIN: Final = (
    _query("job", "Job", f"label_values({BUILD_INFO.name}, job)", everything=None),
    *MODEL_CHAIN[1:],
)

# The engines of the chosen pods, for a row that is repeated for each.
ENGINE: Final[Json] = _query(
    "engine",
    "Engine",
    "query_result(group by (engine) ("
    f"{PODS.over(RANGE).applied('last_over_time', ENGINE_INFO)}"
    f" and {ON_TARGET} {SERIES.over(RANGE).applied('last_over_time', WAITING)}))",
    kind=_QUERY_RESULT,
) | {"hide": _HIDDEN, "regex": '/engine="([^"]+)"/'}

FIRST_TOKEN_SLO: Final[Json] = {
    "name": "ttft_slo",
    "label": "First token within",
    "type": "custom",
    "query": ", ".join(f"{bound.removesuffix('.0')} s : {bound}" for bound in _SHARED_BOUNDS),
    "multi": False,
    "includeAll": False,
    "current": {"selected": True, "text": "1 s", "value": "1.0"},
    "hide": 0,
    "options": [
        {"selected": bound == "1.0", "text": f"{bound.removesuffix('.0')} s", "value": bound}
        for bound in _SHARED_BOUNDS
    ],
    "skipUrlSync": False,
}

LABEL_FILTERS: Final[Json] = {
    "name": "filters",
    "label": "Filters",
    "type": "adhoc",
    "datasource": dict(DATASOURCE),
    "hide": 0,
    "skipUrlSync": False,
}

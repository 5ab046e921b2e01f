"""Everything that the dashboards and alerts ask for while things go wrong: faults are shown, the alerts of them hold."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Final

import pytest

from simulators.waiting import wait_until
from tests.dashboards.cases import PASSING, QUESTIONS, each_alert, each_question
from tests.dashboards.stage import PROVOKED, Cluster, stage
from tests.dashboards.view import RATE_SECONDS, Question, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from grafana.alert_rules import Alert

pytestmark = pytest.mark.slow

SECONDS: Final = 15
SCRAPES: Final = RATE_SECONDS + 4
# Seconds. Longer than scrapes are apart: the last one of each target was in time.
LATELY: Final = 2
# The name of a family twice: mended by the runtime, which would not be scraped otherwise.
TWICE: Final = b"# TYPE twice gauge\ntwice 1\n# TYPE once gauge\nonce 1\n# TYPE twice gauge\ntwice 2\n"
NO_PAYLOAD: Final = b"\xc1"
WELL: Final = "all is well"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that goes wrong, and what it is seen by.

    Attributes:
        happens: Makes it so.
        seen: What Prometheus then answers with something.
        shown: The queries of panels, by panel and ref, that had no answer and get one.
        alerts: The alerts whose expressions hold.
    """

    happens: Callable[[Cluster], None]
    seen: str
    shown: tuple[tuple[str, str], ...]
    alerts: tuple[str, ...]


def bad_events(cluster: Cluster) -> None:
    for pod in cluster.pods:
        pod.publisher.publish_payload(NO_PAYLOAD)


def bad_pages(cluster: Cluster) -> None:
    for pod in cluster.pods:
        pod.engine.flaw = TWICE


def empty_redis(cluster: Cluster) -> None:
    cluster.redis.restart(keep=False)


def stop_engines(cluster: Cluster) -> None:
    cluster.stop_engines()


def stop_redis(cluster: Cluster) -> None:
    cluster.redis.kill()


def stop_a_runtime(cluster: Cluster) -> None:
    cluster.pods[0].stop_runtime()


# One after another, and none is mended: what was wrong before is still wrong.
TROUBLES: Final[Mapping[str, Trouble]] = {
    "events cannot be read": Trouble(
        bad_events,
        "min(increase(kthena_runtime_kv_event_decode_errors_total[5m])) > 0",
        (("Left out / s by reason", "B"),),
        ("KthenaKVEventsLost",),
    ),
    "pages are flawed": Trouble(
        bad_pages,
        'min(increase(kthena_runtime_engine_page_repairs_total{kind="duplicate_family"}[5m])) > 0',
        (("Page repairs / s", "A"),),
        (),
    ),
    "Redis is empty": Trouble(
        empty_redis,
        'min(sum by (pod) (increase(kthena_runtime_kv_resyncs_total{reason=~"emptied|restarted"}[5m]))) > 0',
        (("Made anew / s by reason", "A"),),
        (),
    ),
    "engines are down": Trouble(
        stop_engines,
        "max(max_over_time(kthena_runtime_engine_up[5s])) == 0",
        (("Engine scrape errors / s", "A"),),
        ("KthenaEngineUnreachable",),
    ),
    "Redis is down": Trouble(
        stop_redis,
        "max(kthena_runtime_redis_up) == 0",
        (("Redis errors / s", "A"),),
        ("KthenaRedisUnreachable",),
    ),
    "a runtime is down": Trouble(
        stop_a_runtime,
        'min(up{job="kthena-runtime"}) == 0',
        (),
        ("KthenaRuntimeDown",),
    ),
}

each_trouble = pytest.mark.parametrize("name", TROUBLES)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, View]]:
    """How it looked before, and after each trouble."""
    with stage(tmp_path_factory.mktemp("stage")) as cluster:
        cluster.wait_for_scrapes(SCRAPES)
        seen = {WELL: cluster.view(seconds=SECONDS)}
        for name, trouble in TROUBLES.items():
            since = monotonic()
            trouble.happens(cluster)
            wait_until(partial(cluster.prometheus.query, trouble.seen), name, every=0.2)
            seen[name] = cluster.view(seconds=ceil(monotonic() - since) + SECONDS, in_time=LATELY)
        cluster.stop()
        yield seen


@each_trouble
@each_question
def test_trouble_is_nothing_or_a_number(views: dict[str, View], name: str, question: Question) -> None:
    """Prometheus answers, and never with NaN or infinity."""
    assert all(series.finite for series in views[name].ask(question))


@each_trouble
def test_trouble_is_shown(views: dict[str, View], name: str) -> None:
    """The panels of this fault get something to show; without it they have nothing."""
    of_fault = [each for each in QUESTIONS if (each.target.panel, each.target.ref) in TROUBLES[name].shown]

    assert len(of_fault) == len(TROUBLES[name].shown)
    assert all(views[name].ask(question) for question in of_fault)
    assert not any(views[WELL].ask(question) for question in of_fault)


@each_trouble
@each_alert
def test_alerts_hold_from_their_trouble_on(views: dict[str, View], name: str, alert: Alert) -> None:
    """An alert's expression gives something as soon as what it is for has happened, and nothing before."""
    so_far = itertools.takewhile(lambda each: each != name, TROUBLES)
    holds = any(alert.name in TROUBLES[each].alerts for each in (*so_far, name))
    found = views[name].now(alert.expr)

    assert all(series.finite for series in found)
    assert bool(found) == holds or alert.name in {*PROVOKED, *PASSING}


@each_alert
def test_no_alert_holds_before(views: dict[str, View], alert: Alert) -> None:
    """The busy stage itself alarms nobody but those whom it provokes."""
    assert not views[WELL].now(alert.expr) or alert.name in {*PROVOKED, *PASSING}


def test_the_engines_are_down(views: dict[str, View]) -> None:
    """Every runtime says so, and none of an engine's series is left."""
    view = views["engines are down"]

    assert [series.values for series in view.now("kthena_runtime_engine_up")] == [(0.0,), (0.0,)]
    assert not view.now('{__name__=~"kthena:.+|vllm:.+|sglang:.+"}')

"""A real Prometheus scrapes engines directly and through the runtime: it must come to know the same series."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import pytest
import requests

from exporter.telemetry.names import KV, OWN
from simulators.engine.__main__ import Engine
from simulators.files import CAPTURES
from simulators.misbehaving.engine import BadEngine
from simulators.page_server import PageServer
from simulators.prometheus import Prometheus, promtool_check
from simulators.reading import family_names
from simulators.versions import PAGES
from simulators.waiting import wait_until
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from simulators.versions import VersionPage

pytestmark = pytest.mark.slow

# What Prometheus notes of every scrape.
SCRAPE_SERIES: Final = re.compile(r"up|scrape_(duration_seconds|samples_\w+|series_added)")
# The standard names have a colon because that was ordered; label names are the engine's (Ray has some like WorkerId).
UNAVOIDABLE: Final = {
    "metric names should not contain ':'",
    "label names should be written in 'snake_case' not 'camelCase'",
}
# Seconds between two scrapes, and for each: enough for all of them on a machine that is busy with other things.
INTERVAL: Final = "5s"
# A name, labels and a value as Prometheus writes it.
Series: TypeAlias = tuple[str, frozenset[tuple[str, str]], str]


@dataclass(frozen=True, slots=True)
class Case:
    """A page that stands still, and where its standard metrics come from."""

    name: str
    engine: str
    page: bytes = field(repr=False)
    sources: Mapping[str, str | None] = field(repr=False)
    dropped: Mapping[str, tuple[Mapping[str, str], ...]] = field(default_factory=dict, repr=False)


def version(engine: str, name: str) -> VersionPage:
    return next(page for page in PAGES if (page.engine, page.version) == (engine, name))


def frozen(flavour: Literal["vllm", "sglang"], like: VersionPage) -> Case:
    """Return the page of an embedded engine that has had traffic, at one moment."""
    engine = Engine(flavour=flavour)
    engine.run_requests(30)
    return Case(f"embedded {flavour}", flavour, engine.page(), like.expected)


def cases() -> Iterator[Case]:
    vllm, sglang = version("vllm", "0.32.0"), version("sglang", "0.5.23")
    for path in sorted(CAPTURES.glob("*.prom")):
        yield Case(path.stem, "vllm", path.read_bytes(), vllm.expected)
    yield frozen("vllm", vllm)
    yield frozen("sglang", sglang)
    # The last page of each engine, and those whose values are the sources' own.
    for page in {page.engine: page for page in PAGES if not page.scale}.values():
        yield Case(f"{page.engine} {page.version}", page.engine, page.text, page.expected, page.dropped)


CASES: Final = tuple(cases())
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, str]]:
    """Each case's page twice: where an engine serves it, and where a runtime does."""
    paths = {case.name: f"/{number}" for number, case in enumerate(CASES)}
    with ExitStack() as stack:
        engines = stack.enter_context(PageServer({f"{paths[case.name]}/metrics": case.page for case in CASES}))
        runtimes = [Runtime(engines.url + paths[case.name], engine=case.engine) for case in CASES]
        with ThreadPoolExecutor(4) as starters:
            list(starters.map(stack.enter_context, runtimes))
        direct = {f"direct {name}": f"{engines.url}{path}/metrics" for name, path in paths.items()}
        yield direct | {f"runtime {case.name}": runtime.url for case, runtime in zip(CASES, runtimes, strict=True)}


@pytest.fixture(scope="module")
def scraped(targets: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[Series]]:
    """What Prometheus came to know of each job, all of it by one scrape."""
    jobs = {name: [url] for name, url in targets.items()}
    with Prometheus(tmp_path_factory.mktemp("prometheus"), jobs, interval=INTERVAL) as prometheus:

        def all_good() -> dict[str, float] | None:
            found = good_scrapes(prometheus)
            return found if len(found) == len(jobs) else None

        try:
            moments = wait_until(all_good, "Prometheus has read every target")
        except TimeoutError as error:
            error.add_note(str({url: verdict for url, verdict in prometheus.verdicts().items() if verdict}))
            raise
        return {job: series_of(prometheus, job, moment) for job, moment in moments.items()}


def good_scrapes(prometheus: Prometheus) -> dict[str, float]:
    """Return a moment for each job at which Prometheus read it, and a runtime its engine.

    On a busy machine either may come too late, which leaves no series: the last scrape may be such a one.
    """
    scrapes: dict[str, dict[float, set[str]]] = {}
    for series in prometheus.query('{__name__=~"up|kthena_runtime_engine_up"}[1h]'):
        for moment, value in series["values"]:
            scrapes.setdefault(series["metric"]["job"], {}).setdefault(moment, set()).add(value)
    good = {job: [moment for moment, seen in of_job.items() if seen == {"1"}] for job, of_job in scrapes.items()}
    return {job: moments[-1] for job, moments in good.items() if moments}


def series_of(prometheus: Prometheus, job: str, at: float) -> set[Series]:
    """Return what Prometheus knew of a job at a moment, without the labels and the series that it added itself."""
    found = set()
    for result in prometheus.query(f'{{job="{job}"}}', at):
        labels = {name: value for name, value in result["metric"].items() if name not in ("job", "instance")}
        name = labels.pop("__name__")
        if not SCRAPE_SERIES.fullmatch(name):
            found.add((name, frozenset(labels.items()), result["value"][1]))
    return found


def is_added(series: Series) -> bool:
    return series[0].startswith(("kthena:", "kthena_runtime_"))


def renamed(series: set[Series], source: str, name: str) -> set[Series]:
    """Return the series of a family under another name."""
    parts = "_bucket|_sum|_count" if name.endswith("_seconds") else ""
    pattern = re.compile(rf"{re.escape(source)}({parts})")
    matches = ((pattern.fullmatch(old), labels, value) for old, labels, value in series)
    return {(name + match[1], labels, value) for match, labels, value in matches if match}


def test_every_target_is_up(scraped: dict[str, set[Series]]) -> None:
    """No page, direct or through the runtime, is one that Prometheus would drop."""
    assert set(scraped) == {f"{way} {case.name}" for way in ("direct", "runtime") for case in CASES}
    assert all(scraped.values())


@each_case
def test_the_raw_series_are_the_same(scraped: dict[str, set[Series]], case: Case) -> None:
    """Names, labels and values: not one series is missing, added or changed."""
    direct = scraped[f"direct {case.name}"]
    through = scraped[f"runtime {case.name}"]

    assert direct
    assert {series for series in through if not is_added(series)} == direct


@each_case
def test_the_standard_series_are_the_sources(scraped: dict[str, set[Series]], case: Case) -> None:
    """Each standard family that has a source is there, with the source's labels and values."""
    direct = scraped[f"direct {case.name}"]
    through = scraped[f"runtime {case.name}"]
    sources = {name: source for name, source in case.sources.items() if source}

    assert sources
    for name, source in sources.items():
        dropped = [set(labels.items()) for labels in case.dropped.get(name, ())]
        expected = {one for one in renamed(direct, source, name) if not any(labels <= one[1] for labels in dropped)}
        assert expected, name
        assert renamed(through, name, name) == expected


@each_case
def test_what_is_said_to_be_there_is_there(scraped: dict[str, set[Series]], case: Case) -> None:
    """`standard_metric_present` is 1 for just those standard metrics that Prometheus has series of."""
    through = scraped[f"runtime {case.name}"]
    said = [(dict(labels), value) for name, labels, value in through if name.endswith("_standard_metric_present")]

    assert said
    assert {labels["metric"] for labels, value in said if value == "1"} == {
        name for name in case.sources if renamed(through, name, name)
    }


def test_the_runtimes_own_part_is_beyond_reproach(start_runtime: Callable[..., Runtime]) -> None:
    """Prometheus's linter has no advice on the runtime's own families, busy or new."""
    names = {description.name for description in OWN if description not in KV}
    with Engine() as engine, BadEngine("refused") as away:
        busy = start_runtime(engine.url)
        for path in ("/", "/ready", "/nowhere", "/metrics"):
            busy.get(path)
        every = family_names(busy.page())
        page = busy.get(params={"name[]": [name for name in every if name.startswith("kthena_runtime_")]}).content
        new = start_runtime(away.url, "--no-raw-metrics").get().content

    for text in (page, new):
        assert names <= set(family_names(text.decode()))
        assert all(name.startswith("kthena_runtime_") for name in family_names(text.decode()))
        assert promtool_check(text) == (0, "")


@each_case
def test_the_linter_only_has_advice_on_names(targets: dict[str, str], case: Case) -> None:
    """A whole page is advised on nothing but names: the engine's, and the colon of `kthena:`, which was ordered."""
    page = requests.get(targets[f"runtime {case.name}"] + "/metrics", timeout=60).content
    _, before = promtool_check(case.page)
    code, after = promtool_check(page)

    added = set(after.splitlines()) - set(before.splitlines())
    assert code == 3, after
    assert {line.partition(" ")[2] for line in added if line.startswith("kthena:")} <= UNAVOIDABLE
    assert [line for line in added if not line.startswith("kthena:")] == []

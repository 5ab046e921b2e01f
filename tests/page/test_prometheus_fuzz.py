"""Go's two readers as the judges of what is let through: Prometheus's scraper, and expfmt by way of promtool."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from exporter.page.parse import InvalidPageError, parse_page
from exporter.page.writer import write
from exporter.standard.rules import Kind, Rule, RuleSet, Source
from exporter.standard.twins import standardize
from simulators.page_server import PageServer
from simulators.prometheus import Prometheus, promtool_check
from simulators.waiting import wait_until
from tests.harness.strategies import colliding_pages, mutated_pages, stamped_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from exporter.page.page import Page, Shape

pytestmark = pytest.mark.slow

PAIRS: Final = 500
# A machine that is busy with other things serves as many; more, and each would come too late.
PAGES_PER_SECOND: Final = 100
# What the runtime refuses though both readers take it, on purpose: they look neither at the bytes of a comment nor
# behind a NUL, which ends the page for Prometheus; the runtime has no use for a page with either.
STRICTER: Final = {"a NUL byte", "not valid UTF-8"}


# Where the two readers differ from each other, or from what one would think.
QUIRKS: Final = (
    *(
        b"# TYPE foo%sfoo 1\n" % end
        for end in (b"  gauge\n", b"\tgauge\n", b" \tgauge\n", b" gauge \n", b" GAUGE\n", b"\n")
    ),
    *(b"%s foo gauge\nfoo 1\n" % start for start in (b"#TYPE", b"#\tTYPE", b"#  TYPE ", b"# TYPE\t", b"# Type")),
    *(b"#%s\n" % rest for rest in (b"HELP", b"HELP 5", b"HELP foo", b"TYPE foo", b"TYPE foo bar", b"TYPES foo")),
    *(b"# HELP%s\n" % rest for rest in (b"", b" ", b" foo", b" foo ", b"foo bar", b" 1foo bar", b' foo{a="b"} x')),
    *(
        b"foo%s\n" % rest
        for rest in (b" 1 -1", b" 1 +1", b" 1 1.5", b" 1 0", b" 1 2 3", b" 1 2 ", b" 1 ", b"\t1\t", b"  1  2")
    ),
    *(b"foo{%s} 1\n" % labels for labels in (b"", b",", b'a="b",', b'a="b",,c="d"', b' a = "b" ', b'a="b"c="d"')),
    *(b"foo{%s} 1\n" % labels for labels in (b'a="1",a="2"', b'__name__="x"', b'a:b="x"', b'"a.b"="c"', b'a="b\nc"')),
    *(
        b"foo %s\n" % number
        for number in (b"+1", b".5", b"5.", b".", b"1e", b"--1", b"1_0", b"1e999", b"0x10", b"00012")
    ),
    *(
        b"foo %s\n" % number
        for number in (b"Inf", b"+inf", b"Infinity", b"-infinity", b"nan", b"+NaN", b"-nan", b"true")
    ),
    *(
        b'# TYPE h histogram\nh_bucket{le="%s"} 1\n' % le
        for le in (b"", b"x", b" 1", b"1_0", b"1e999", b"+inf", b"NaN")
    ),
    *(b'# TYPE s summary\ns{quantile="%s"} 1\n' % quantile for quantile in (b"", b"x", b"1_0", b"Infinity")),
    b'# TYPE h histogram\nh_bucket 1\nh{le="0.5"} 1\nh 1\nh_count NaN\n',
    b"# TYPE h histogram\nh_sum 1\n# TYPE h_sum gauge\nh_sum 2\n",
    b"# TYPE h_count gauge\nh_count 1\n# HELP h_count x\n# TYPE h histogram\nh_count 1\n",
    b"# HELP s x\n# TYPE s summary\n# HELP s_count y\n# TYPE s_count counter\ns_count 1\n",
    b'foo{a="b"}1\nfoo{a="}"} 1\nfoo{a="# HELP x"} 1\n',
    b"# EOF\n# UNIT foo s\nfoo 1\n",
    b"foo 1 # {} 1\n",
    b'{a="b"} 1\n{"foo"} 1\n',
    b"foo 1\nfoo 2\n\n \t\n",
    b"foo 1\r\n",
    b"foo 1",
)


@dataclass(slots=True)
class Outcomes:
    """What became of each page: the text that is exported, or why it is refused."""

    let_through: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    twins: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    errors: dict[str, str] = field(default_factory=dict)  # of Prometheus, by path

    def add(self, raw: bytes, earlier: bytes) -> None:
        """Read a page as the collector does, knowing an earlier one, and give every family a twin."""
        number = len(self.let_through) + len(self.refused)
        try:
            page = parse_page(raw, shape_of(earlier))
        except InvalidPageError as error:
            self.refused[f"/refused/{number}"] = (raw, error.problem)
            return
        twins = standardize(page, twin_rules(page, number)).families
        self.let_through[f"/let_through/{number}"] = b"".join(write(page, twins))
        self.twins += len(twins)
        self.repairs.update(page.repairs)


def shape_of(raw: bytes) -> Shape | None:
    """Return the shape of a page, if it is one."""
    try:
        return parse_page(raw).shape
    except InvalidPageError:
        return None


def twin_rules(page: Page, number: int) -> RuleSet:
    """Return a rule for each family, under a name that no other page has."""
    kinds: dict[str, Kind] = {"counter": "counter", "histogram": "histogram"}
    names = enumerate((family.full_name, kinds.get(family.kind, "gauge")) for family in page.families())
    rules = (Rule(f"kthena:twin_{number}_{i}", kind, "Twin.", (Source(name),)) for i, (name, kind) in names)
    return RuleSet("any", tuple(rules))


def drawn_pairs() -> list[tuple[bytes, bytes]]:
    """Draw the same pages and mutants at each run."""
    pairs: list[tuple[bytes, bytes]] = []

    @settings(
        max_examples=PAIRS,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated_pages() | mutated_pages(stamped_pages()) | mutated_pages(colliding_pages()))
    def draw(pair: tuple[bytes, bytes]) -> None:
        pairs.append(pair)

    draw()
    return pairs


def scattered(page: bytes) -> bytes:
    """Return a page that has every line twice, its families in pieces, and escapes that are none."""
    escaped = re.sub(rb'(?<!le)(?<!quantile)="', rb'="\\d', page)
    lines = escaped.splitlines(keepends=True)
    return b"".join([*lines[::2], *lines[1::2], *reversed(lines)])


def disjoint(pages: Iterable[bytes]) -> list[list[bytes]]:
    """Sort pages into groups; no two of a group have names or series in common, so that they make one page."""
    groups: list[tuple[set[bytes], list[bytes]]] = []
    for page in pages:
        found = re.findall(rb"^(?:#[ \t]*(?:HELP|TYPE)[ \t]+)?([a-zA-Z_:]\w*(?::\w*)*)", page, re.MULTILINE)
        names = {re.sub(rb"(?:_bucket|_sum|_count)+$", b"", name) for name in found}
        fitting = next((group for group in groups if not group[0] & names), None)
        if fitting is None:
            fitting = (set(), [])
            groups.append(fitting)
        fitting[0].update(names)
        fitting[1].append(page)
    return [group for _, group in groups]


def judged(server: PageServer, paths: Iterable[str], folder: Path) -> dict[str, str]:
    """Return what Prometheus has against each page, by path; nothing for most."""
    targets = [server.url + path for path in paths]
    found: dict[str, str] = {}

    def has_read_all(prometheus: Prometheus) -> bool:
        found.update(prometheus.verdicts())
        return len(found) == len(targets)

    interval = f"{len(targets) // PAGES_PER_SECOND + 1}s"
    with Prometheus(folder, {"pages": targets}, interval=interval) as prometheus:
        wait_until(lambda: has_read_all(prometheus), "Prometheus has read every page", every=0.5)
    return {url.removeprefix(server.url): error for url, error in found.items()}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Judge all pages, by one Prometheus with a target for each."""
    found = Outcomes()
    for page, mutant in drawn_pairs():
        for raw in dict.fromkeys((page, mutant, scattered(page))):
            found.add(raw, page)
    for quirk in QUIRKS:
        found.add(quirk, b"")
    bodies = found.let_through | {path: raw for path, (raw, _) in found.refused.items()}
    with PageServer(bodies) as server:
        found.errors = judged(server, bodies, tmp_path_factory.mktemp("prometheus"))
    return found


def test_enough_is_tried(outcomes: Outcomes) -> None:
    """Of each sort there are so many pages that the other tests mean something."""
    assert len(outcomes.let_through) > 300
    assert len(outcomes.refused) > 100
    assert outcomes.twins > 500
    assert outcomes.repairs["duplicate_family"] > 300
    assert outcomes.repairs["escape"] > 300
    assert set(outcomes.repairs) == {"duplicate_family", "escape", "header_blank", "trailing_blank", "shadowed_header"}


def test_prometheus_takes_all_that_is_let_through(outcomes: Outcomes) -> None:
    """No page that the runtime exports costs Prometheus a scrape."""
    against = {outcomes.let_through[path]: outcomes.errors[path] for path in outcomes.let_through}

    assert {page: error for page, error in against.items() if error} == {}


def test_expfmt_takes_all_that_is_let_through(outcomes: Outcomes) -> None:
    """Nor does it cost those who read with Go's library, autoscalers among them, theirs."""
    failed = [group for group in disjoint(outcomes.let_through.values()) if promtool_check(b"".join(group))[0] == 1]

    assert [page for group in failed for page in group if promtool_check(page)[0] == 1] == []


def test_what_is_refused_is_no_loss(outcomes: Outcomes, record_property: Callable[[str, object], None]) -> None:
    """What Prometheus would have taken all the same, expfmt would not, or it has bytes that belong on no page."""
    taken = [page for path, page in outcomes.refused.items() if not outcomes.errors[path]]
    by_both = Counter(problem for raw, problem in taken if promtool_check(raw)[0] != 1)
    record_property("refused, of which Prometheus takes", (len(outcomes.refused), len(taken)))
    record_property("refused though both readers take it", dict(by_both))

    # Now and then a mutant has a name that runs into its value, as `foo-1`, or ends in a comment that does not end.
    assert sum(count for problem, count in by_both.items() if problem not in STRICTER) <= 25  # of 500 mutants
    assert sum(problem not in STRICTER for _, problem in taken) < len(outcomes.refused) / 5

"""Hypothesis strategies: exposition text, as client libraries write it and damaged."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

__all__ = ["colliding_pages", "mutated_pages", "pages", "stamped_pages", "values"]

_NAMES: Final = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,12}", fullmatch=True)
_LABEL_NAMES: Final = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,6}", fullmatch=True).filter(
    lambda name: name not in ("le", "quantile")
)
_TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), max_size=12)


def values() -> st.SearchStrategy[str]:
    """Values in all the forms that are met."""
    floats = st.floats(allow_subnormal=True).map(repr)
    spelled = floats.map(lambda text: {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text))
    return spelled | st.integers(-(10**18), 10**18).map(str)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _labels(pairs: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs.items()) + "}" if pairs else ""


@st.composite
def _families(draw: st.DrawFn, name: str) -> str:
    kind = draw(st.sampled_from(["counter", "gauge", "histogram", "summary", "untyped", None]))
    lines = []
    if draw(st.booleans()):
        text = draw(_TEXTS).replace("\\", r"\\").replace("\n", r"\n")
        lines.append(f"# HELP {name} {text}")
    if kind:
        lines.append(f"# TYPE {name} {kind}")
    label_names = draw(st.lists(_LABEL_NAMES, unique=True, max_size=3))
    label_values = st.fixed_dictionaries(dict.fromkeys(label_names, _TEXTS))
    series = draw(st.lists(label_values, unique_by=repr, min_size=0 if kind else 1, max_size=3))
    stamp = draw(st.sampled_from(["", "", "", " 1764000000000", " 0"]))
    for labels in series:
        parts = {
            "histogram": [("_bucket", {"le": "0.5"}), ("_bucket", {"le": "+Inf"}), ("_sum", {}), ("_count", {})],
            "summary": [("", {"quantile": "0.9"}), ("_sum", {}), ("_count", {})],
        }.get(kind or "", [("", {})])
        lines += [f"{name}{suffix}{_labels(labels | more)} {draw(values())}{stamp}" for suffix, more in parts]
    return "".join(line + "\n" for line in lines)


@st.composite
def pages(draw: st.DrawFn) -> bytes:
    """Valid pages: distinct families of all types, contiguous."""
    names = draw(st.lists(_NAMES.map(lambda name: f"{name}x"), unique=True, max_size=5))
    # No family may be named like another's series, as foo_sum beside foo is.
    distinct = [name for i, name in enumerate(names) if not any(name.startswith(other) for other in names[:i])]
    distinct = [name for name in distinct if not any(other != name and other.startswith(name) for other in distinct)]
    comment = draw(st.sampled_from(["", "", "# a comment\n", "\n"]))
    return (comment + "".join(draw(_families(name)) for name in distinct)).encode()


@st.composite
def stamped_pages(draw: st.DrawFn) -> bytes:
    """Valid pages on which samples have timestamps, after values of all forms."""
    series = draw(st.lists(st.sampled_from(["a", "b5", "c_inf", 'd{e="f"}', "g{}"]), unique=True, min_size=1))
    forms = values() | st.sampled_from(["+Inf", "-infinity", "nan", "5.", ".5", "+1", "1E3"])
    stamps = st.integers(0, 10**18 - 1).map(lambda stamp: f" {stamp}") | st.just("")
    return "".join(f"{name} {draw(forms)}{draw(stamps)}\n" for name in series).encode()


@st.composite
def colliding_pages(draw: st.DrawFn) -> bytes:
    """Lines of families whose names are series of each other's, in any order; few bounds are no numbers."""
    names = st.sampled_from(["a", "a_sum", "a_count", "a_bucket", "a_total", "a_sum_count", "b"])
    kinds = st.sampled_from(["counter", "gauge", "histogram", "histogram", "summary", "untyped"])
    labels = st.sampled_from(["", "", '{le="1"}', '{quantile="0.5"}', '{x="le"}', '{le="x"}'])
    start = draw(st.sampled_from(["# ", "# ", "#"]))
    line = st.one_of(
        st.tuples(names, kinds).map(lambda drawn: f"{start}TYPE {drawn[0]} {drawn[1]}\n"),
        names.map(lambda name: f"{start}HELP {name} text\n"),
        *[st.tuples(names, labels, st.integers(0, 9)).map(lambda drawn: f"{drawn[0]}{drawn[1]} {drawn[2]}\n")] * 3,
        st.sampled_from(["# a comment\n", "\n"]),
    )
    return "".join(draw(st.lists(line, min_size=1, max_size=12))).encode()


@st.composite
def mutated_pages(draw: st.DrawFn, originals: st.SearchStrategy[bytes] | None = None) -> tuple[bytes, bytes]:
    """A page, valid unless `originals` has others, and the same with a few bytes changed, cut out or put in."""
    page = draw((pages() if originals is None else originals).filter(bool))
    mutant = bytearray(page)
    alphabet = st.sampled_from(list(b'0123456789.+-eE \n\t#{}",=\\_aZ:\x00\xff')) | st.integers(0, 255)
    for _ in range(draw(st.integers(1, 3))):
        position = draw(st.integers(0, max(len(mutant) - 1, 0)))
        action = draw(st.sampled_from(["change", "cut", "insert"]))
        if action == "insert" or not mutant:
            mutant.insert(position, draw(alphabet))
        elif action == "change":
            mutant[position] = draw(alphabet)
        else:
            del mutant[position : position + draw(st.integers(1, 8))]
    return page, bytes(mutant)

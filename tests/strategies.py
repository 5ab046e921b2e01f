"""Hypothesis strategies: exposition text, as client libraries write it and damaged."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

__all__ = ["mutated_pages", "pages", "values"]

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
def mutated_pages(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A valid page, and the same with a few bytes changed, cut out or put in."""
    page = draw(pages().filter(bool))
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

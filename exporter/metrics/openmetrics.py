"""OpenMetrics text, turned into the text format 0.0.4.

The engine is asked for 0.0.4. One that answers OpenMetrics all the same is read
with prometheus_client's own parser, at its price.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporter.metrics.errors import Reason, ScrapeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric
    from prometheus_client.samples import Sample

__all__ = ["as_text_format"]

# Kinds that the older format has no word for, as prometheus_client renders them.
_KINDS: Final = {"info": "gauge", "stateset": "gauge", "gaugehistogram": "histogram", "unknown": "untyped"}
# Samples that stand in a family of their own there, by kind and suffix.
_SPLIT: Final = {"_created": "gauge", "_gsum": "gauge", "_gcount": "gauge"}


def as_text_format(body: bytes) -> bytes:
    """Return OpenMetrics text as text format 0.0.4: same series, same values.

    Exemplars, units and native histograms have no place there and are dropped.

    Raises:
        ScrapeError: The text is not valid OpenMetrics.
    """
    try:
        families = list(text_string_to_metric_families(body.decode()))  # type: ignore[no-untyped-call]
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise ScrapeError(Reason.INVALID, f"not valid OpenMetrics text: {type(error).__name__}") from None
    return "".join(block for family in families for block in _blocks(family)).encode()


def _blocks(family: Metric) -> Iterator[str]:
    name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
    apart: dict[str, list[Sample]] = {}
    yield _header(name, _KINDS.get(family.type, family.type), family.documentation)
    for sample in family.samples:
        if getattr(sample, "native_histogram", None):
            continue
        suffix = sample.name.removeprefix(family.name)
        if suffix in _SPLIT:
            apart.setdefault(suffix, []).append(sample)
        else:
            yield _line(sample)
    for suffix, samples in apart.items():
        yield _header(family.name + suffix, _SPLIT[suffix], family.documentation)
        yield from map(_line, samples)


def _header(name: str, kind: str, documentation: str) -> str:
    text = documentation.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
    series = f"{sample.name}{{{labels}}}" if labels else sample.name
    timestamp = f" {round(float(sample.timestamp) * 1000)}" if sample.timestamp is not None else ""
    return f"{series} {_number(sample.value)}{timestamp}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(repr(float(value)), repr(float(value)))

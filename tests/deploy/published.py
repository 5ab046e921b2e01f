"""What others publish, out of packages: schemas of the files in deploy/, and the tools that check them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, TypeAlias

import kubernetes_validate
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft202012Validator

Document: TypeAlias = dict[str, Any]


def tool(name: str, install: str) -> str:
    """Return the path of a command beside this Python or on the PATH; fail the test, and say what to do, without."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: {install}")
    return found


def compose_errors(document: Document) -> list[str]:
    """Return what the Compose Specification has against a document."""
    return _errors(document, get_builtin_schema("vendor.compose-spec"))


def pod_monitor_errors(document: Document) -> list[str]:
    """Return what the Prometheus Operator's definition of a PodMonitor has against a document."""
    from cloudcoil.models.prometheus_operator.v1 import PodMonitor

    return _errors(document, _closed(PodMonitor.model_json_schema(by_alias=True)))


def prometheus_rule_errors(document: Document) -> list[str]:
    """Return what the Prometheus Operator's definition of a PrometheusRule has against a document."""
    from cloudcoil.models.prometheus_operator.v1 import PrometheusRule

    return _errors(document, _closed(PrometheusRule.model_json_schema(by_alias=True)))


def scrape_config_errors(document: Document) -> list[str]:
    """Return what the Prometheus Operator's definition of a ScrapeConfig has against a document."""
    from cloudcoil.models.prometheus_operator.v1alpha1 import ScrapeConfig

    return _errors(document, _closed(ScrapeConfig.model_json_schema(by_alias=True)))


def kubernetes_errors(document: Document, version: str) -> list[str]:
    """Return what Kubernetes of that version has against an object; unknown fields count."""
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def _errors(document: Document, schema: Document) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(document)]


def _closed(schema: Any) -> Any:
    """Refuse the fields that a schema does not name: an API server would drop them without a word."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: _closed(part) for name, part in schema.items()}
    return {"additionalProperties": False, **parts} if isinstance(schema.get("properties"), dict) else parts

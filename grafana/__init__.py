"""Dashboards, recording rules and alerts, made by `python -m grafana.generate`; not part of the wheel."""

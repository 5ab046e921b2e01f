"""The dashboards, rules and alerts of grafana/."""

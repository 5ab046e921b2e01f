"""Prometheus exposition text 0.0.4: its grammar, the parser, pages, families, OpenMetrics input and the writer."""

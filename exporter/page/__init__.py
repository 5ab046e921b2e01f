"""Exposition text, format 0.0.4: its grammar, the parser, families, OpenMetrics, and the writer."""

"""Benchmarks: what a scrape costs, and what the runtime costs when nobody scrapes.

Run `python -m bench.scrape` and `python -m bench.footprint`; docs/benchmarks.md
says what is measured and has the numbers.
"""

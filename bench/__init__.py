"""Benchmarks: what a scrape costs, what KV events cost, and what the runtime costs when nothing happens.

Run `python -m bench.scrape`, `python -m bench.kv` and `python -m bench.footprint`;
docs/benchmarks.md says what is measured and has the numbers.
"""

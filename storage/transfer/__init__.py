"""Bytes over HTTP: range requests, scheduled over files, written to partial files that resume."""

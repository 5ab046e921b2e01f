"""Bytes over HTTP: range requests, scheduled over files, into partial files that resume."""

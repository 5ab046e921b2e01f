"""The worker's side of a download: one request on standard input, one event per line on standard output."""

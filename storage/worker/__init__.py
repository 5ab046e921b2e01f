"""The worker's side of a download: reads one request from standard input, writes events to standard output."""

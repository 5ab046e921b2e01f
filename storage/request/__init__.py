"""What to download, parsed once: used by the command line, the supervisor and the worker."""

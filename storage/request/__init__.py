"""What to download, parsed once. The command line, the supervisor and the worker share these modules."""

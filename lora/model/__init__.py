"""The Model YAML as a source of desired adapters: reading it, and following the file as it changes."""

"""The Model as a source of adapters: its YAML, and the thread that follows the file."""

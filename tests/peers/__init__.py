"""Peers the runtime meets in tests and in the demo: an engine, and engines that misbehave."""

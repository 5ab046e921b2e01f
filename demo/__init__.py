"""What `make demo` runs: an engine under load, the runtime in front of it, and a Prometheus."""

"""The parent's side of a download: a bounded number of jobs, each with a worker process (docs/adr/0009)."""

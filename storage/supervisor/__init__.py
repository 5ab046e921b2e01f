"""The parent's side of a download: a bounded number of jobs, each in a worker process."""

"""Run the worker: `python -m storage.worker`."""

from storage.process import leave
from storage.worker.main import main

if __name__ == "__main__":
    leave(main())

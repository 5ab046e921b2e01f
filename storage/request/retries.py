"""Why a request is made again, or a worker process is started again: the `reason` label of the retries metric."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Retry"]


class Retry(StrEnum):
    """A reason. An answer whose status may pass has `http_` and the status instead, `http_503` for example."""

    # Of requests.
    DNS = "dns"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    TLS = "tls"
    RESET = "reset"
    TRUNCATED = "truncated"
    WRONG_RANGE = "wrong_range"
    EXPIRED = "expired"
    CHANGED = "changed"
    # Of worker processes.
    STALLED = "stalled"
    DIED = "died"

"""Why the engine's metrics could not be read.

One exception class covers all failures, because the reaction is always the same:
the page has no engine families, and `kthena_runtime_engine_up` is 0. Failures
differ only in the `reason` label of the error counter.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason", "ScrapeError"]


class Reason(StrEnum):
    """The `reason` label of `kthena_runtime_engine_scrape_errors_total`; a closed list (docs/adr/0002)."""

    DNS = "dns"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    HTTP_STATUS = "http_status"
    REDIRECT = "redirect"
    ENCODING = "encoding"
    TOO_LARGE = "too_large"
    TRUNCATED = "truncated"
    NOT_METRICS = "not_metrics"  # HTML or JSON: most likely a wrong metrics path
    INVALID = "invalid"
    LOOP = "loop"  # the engine's URL leads back to this runtime, which answered 508
    BACKLOG = "backlog"  # earlier pages still fill the memory for pages (docs/adr/0018)
    INTERNAL = "internal"  # a defect of the runtime; its log has the traceback


class ScrapeError(Exception):
    """The engine's metrics could not be read.

    Attributes:
        reason: The class of failure: the label of the error counter.
        detail: One sentence for people. It holds none of the page's content, because it is logged and served.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

"""Why the engine's metrics could not be read.

    ScrapeError(Exception)      one class: every reason has the same reaction,
                                an empty engine part and engine_up 0

What they differ in is the `reason` label of the metric.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason", "ScrapeError"]


class Reason(StrEnum):
    """The `reason` label of `kthena_runtime_engine_scrape_errors_total`."""

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
    NOT_METRICS = "not_metrics"
    INVALID = "invalid"
    LOOP = "loop"
    BACKLOG = "backlog"
    INTERNAL = "internal"


class ScrapeError(Exception):
    """The engine's metrics could not be read.

    Attributes:
        reason: The class of failure, for the metric.
        detail: One sentence for people, without the page's content.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        """Keep the reason and the sentence."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

"""What was mended on the engine's page, or left out of it, so that every reader takes it."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Repair"]


class Repair(StrEnum):
    """The `kind` label of `kthena_runtime_engine_page_repairs_total`."""

    DUPLICATE_FAMILY = "duplicate_family"
    ESCAPE = "escape"
    HEADER_BLANK = "header_blank"
    OPENMETRICS = "openmetrics"
    RESERVED_NAME = "reserved_name"
    SHADOWED_HEADER = "shadowed_header"
    STANDARD_NAME_TAKEN = "standard_name_taken"
    TRAILING_BLANK = "trailing_blank"

"""The kinds of repairs with which every parser accepts the engine's page."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Repair"]


class Repair(StrEnum):
    """The `kind` label of `kthena_runtime_engine_page_repairs_total`."""

    DUPLICATE_FAMILY = "duplicate_family"  # scattered lines of one family were joined
    ESCAPE = "escape"  # a lone backslash was escaped
    HEADER_BLANK = "header_blank"  # `#TYPE` became `# TYPE`
    OPENMETRICS = "openmetrics"  # the page was converted to text 0.0.4
    RESERVED_NAME = "reserved_name"  # a family with the runtime's own prefix was dropped
    SHADOWED_HEADER = "shadowed_header"  # the HELP and TYPE of a part such as `h_sum` were dropped
    STANDARD_NAME_TAKEN = "standard_name_taken"  # the engine exposes the standard name itself: no twin
    TRAILING_BLANK = "trailing_blank"  # blanks at the end of a sample were cut off

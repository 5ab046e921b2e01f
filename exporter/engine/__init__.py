"""The engine's metrics page: fetched within a deadline, checked, and collected."""

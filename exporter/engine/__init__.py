"""The engine's metrics page: how it is fetched within a deadline, and collected."""

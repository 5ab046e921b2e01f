"""Where files come from: each source lists its files and says how they are fetched."""

"""The standard families: which engine family feeds which, and how it is renamed."""

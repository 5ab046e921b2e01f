"""The standard families: which engine family feeds each of them, and how the engine's lines are renamed."""

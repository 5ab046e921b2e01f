"""Engines, Hubs, stores and clients, well-behaved and misbehaving: shared by tests, demo and bench."""

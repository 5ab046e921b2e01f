"""Engines, stores, volumes and clients that misbehave, each in one way."""

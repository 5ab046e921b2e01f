"""Model downloads with guarantees. No code yet; see docs/adr/0001."""

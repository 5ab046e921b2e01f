"""The HTTP side: Falcon resources, one module a subject."""

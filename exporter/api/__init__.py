"""The HTTP API: Falcon resources, one module per subject, and the Waitress server with its limits for clients."""

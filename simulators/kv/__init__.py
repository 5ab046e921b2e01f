"""An engine's KV events: frames, the publisher, and the router's lookup."""

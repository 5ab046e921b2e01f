"""From the engine's exposition text to the page that Prometheus gets."""

"""An adapter's files: preflight, installation, content digests, and removal when no runtime needs them."""

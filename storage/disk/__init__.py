"""Files on disk: layout, lock, journal, manifest, listing, and the publication of a copy."""

"""What lies on disk: layout, journal, manifest, lock, listing, and how a copy is published."""

"""The runtime's own metrics: their names, the instruments that keep them, and one module per subject."""

"""The runtime's own metrics: their names, the instruments that hold them, and one module per subject."""

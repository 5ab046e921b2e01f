"""An adapter's files: installed, named by content, checked, and removed when nothing needs them."""

"""A Hugging Face Hub and its CDN."""

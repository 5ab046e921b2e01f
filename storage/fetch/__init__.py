"""The sources: each lists its files and knows how they are fetched."""

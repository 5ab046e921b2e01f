"""The sources of files. Each source lists its files, and fetches them or signs requests for them."""
